"""An LLM's tokenizer and base model out of its files, by `transformers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ssna.stage1_extract.llm_files import LLMError, LLMFiles

ComputeDtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Placement:
    """Where the LLM runs."""

    device: str
    """A PyTorch device; that of the inputs if the LLM is spread over several"""
    device_map: str | dict[str, str] | None = None
    """`auto`, or the device of each module, for an LLM that one device cannot hold (by accelerate)"""
    offload_folder: str | None = None
    """Where weights go that are left on disk"""
    tensor_parallel: bool = False
    """Whether the processes of torchrun hold a part of every weight each"""


def load_tokenizer(files: LLMFiles) -> Any:
    """The tokenizer, from the local files alone.

    Raises:
        LLMError: if transformers cannot load it.
    """
    transformers = _quiet_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(files.folder, **_common(files))
    except Exception as error:  # Damaged or unknown models raise errors of many libraries; the cause is kept.
        raise _cannot_load(files, "tokenizer", error) from error


def load_model(files: LLMFiles, dtype: ComputeDtype, placement: Placement) -> nn.Module:
    """The base model without any head, of an encoder-decoder only the encoder; in evaluation mode, frozen.

    Raises:
        LLMError: if transformers cannot load it, or the weights do not fill it.
    """
    _quiet_transformers()
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "output_loading_info": True, **_common(files)}
    if files.gguf is None:
        options["use_safetensors"] = True
    if placement.device_map is not None:
        options |= {"device_map": placement.device_map, "offload_folder": placement.offload_folder}
    if placement.tensor_parallel:
        if "RANK" not in os.environ:
            raise LLMError(
                "--tensor-parallel shares the weights among the processes of torchrun, and this one was started "
                "without it. Run `torchrun --nproc-per-node N -m ssna extract …`, or leave the option out."
            )
        options["tp_plan"] = "auto"
    try:
        model, loading = _auto_class(files).from_pretrained(files.folder, **options)
    except Exception as error:
        raise _cannot_load(files, "model", error) from error
    if files.config.get("is_encoder_decoder"):
        model = model.get_encoder()
    _check_filled(files, loading["missing_keys"])
    model.config.use_cache = False  # Keys and values are kept for generating text; here they would only take memory.
    model = model.eval().requires_grad_(False)
    if placement.device_map is None and not placement.tensor_parallel:
        model = model.to(torch.device(placement.device))
    loaded: nn.Module = model
    return loaded


def base_config(files: LLMFiles) -> Any:
    """The configuration of the base model, as transformers has it.

    Raises:
        LLMError: if transformers does not know it.
    """
    transformers = _quiet_transformers()
    try:
        return transformers.AutoConfig.from_pretrained(files.folder, **_common(files))
    except Exception as error:
        raise _cannot_load(files, "configuration", error) from error


def random_model(files: LLMFiles, config: Any) -> Any:
    """A base model of this configuration with random weights, or, on PyTorch's device `meta`, with none; frozen.

    Raises:
        LLMError: if transformers cannot make one.
    """
    try:
        model = _auto_class(files).from_config(config)
    except Exception as error:
        raise _cannot_load(files, "model", error) from error
    if files.config.get("is_encoder_decoder"):
        model = model.get_encoder()
    return model.eval().requires_grad_(False)


def is_decoder(config: Any) -> bool:
    """Whether tokens see only those before them: a causal LLM that was not made bidirectional."""
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    bidirectional = getattr(config, "use_bidirectional_attention", False) or config.is_encoder_decoder
    return config.model_type in causal and config.model_type not in masked and not bidirectional


def _quiet_transformers() -> Any:
    # Imported here: it takes seconds, and nothing but an extraction that has texts to read needs it.
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def _common(files: LLMFiles) -> dict[str, Any]:
    # Said either way: left open, transformers would ask on the terminal.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": files.trusted}
    if files.gguf is not None:
        options["gguf_file"] = files.gguf.name
    return options


def _auto_class(files: LLMFiles) -> Any:
    """The class whose `from_pretrained` gives the base model; some encoder-decoders have one of the encoder alone."""
    import transformers
    from transformers.models.auto import modeling_auto

    encoders = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    encoder_only = files.config.get("is_encoder_decoder") and files.config.get("model_type") in encoders
    return transformers.AutoModelForTextEncoding if encoder_only else transformers.AutoModel


def _cannot_load(files: LLMFiles, what: str, error: Exception) -> LLMError:
    import transformers

    if "auto_map" in files.config and not files.trusted:
        return LLMError(
            f"{files.source} brings its own Python code, which this transformers ({transformers.__version__}) needs to "
            "load it. Read that code; if you trust it, add --trust-remote-code."
        )
    if isinstance(error, ImportError):
        return LLMError(
            f"the {what} of {files.source} needs a package that is not installed: {_first_line(error)} "
            "`pip install 'ssna[gguf]'` brings accelerate and gguf."
        )
    if "ignore_mismatched_sizes" in str(error):
        return LLMError(
            f"{files.folder}: the weights have other shapes than {files.architecture} with this config.json. Expected "
            "both from the same model; copy it again."
        )
    return LLMError(
        f"the {what} of {files.source} cannot be loaded by transformers {transformers.__version__} "
        f"({type(error).__name__}: {_first_line(error)}). Expected a sound text model; copy it again."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]


def _check_filled(files: LLMFiles, missing: Sequence[str]) -> None:
    """Refuse weights that would leave part of the LLM random; the pooler is not read, so it may be missing."""
    needed = sorted(key for key in missing if "pooler" not in key)
    if needed:
        raise LLMError(
            f"{files.folder}: the weights lack {len(needed)} of the LLM's tensors ({needed[0]}), which would be "
            "random. Expected the weights of the architecture that config.json names; copy the model again."
        )
