"""`ssna export`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ssna.api.export import FORMATS, INDEXES, Export, ExportFormat, IndexChoice, export
from ssna.cli.options import default_of, json_option
from ssna.terminal import counted, print_json, print_line, print_table, size, work_progress
from ssna.vector_index import FLAT_ITEMS


@click.command("export", epilog="\b\nExample: ssna export runs/text serving --format parquet --format onnx")
@click.argument("run")
@click.argument("output")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=FORMATS,
    help="One to write (repeat the option).  [default: all]",
)
@click.option(
    "--index",
    type=click.Choice(INDEXES),
    default=default_of(export, "index"),
    show_default=True,
    help=f"flat searches exactly, hnsw approximately; auto is flat up to {FLAT_ITEMS:,} items.",
)
@click.option("--overwrite", is_flag=True, help="Replace an export that is there.")
@json_option
def export_command(
    run: str, output: str, formats: tuple[ExportFormat, ...], index: IndexChoice, overwrite: bool, as_json: bool
) -> None:
    """Write the run folder RUN into the folder OUTPUT as files that are served without ssna.

    \b
    safetensors, parquet, npy   the items' vectors
    onnx                        histories in, queries out; compared with PyTorch
    faiss                       an index of the vectors; its recall is measured

    The inner product of a query and an item's vector is the model's score. docs/export.md has an example that serves
    recommendations from these files. The formats onnx and faiss need `pip install 'ssna[export]'`.
    """
    with work_progress("exporting", "formats") as on_progress:
        done = export(run, output, formats=formats, index=index, overwrite=overwrite, on_progress=on_progress)
    if as_json:
        files = {name: str(path) for name, path in done.files.items()}
        print_json({**asdict(done), "output": str(done.output), "files": files})
        return
    _show(done)


def _show(done: Export) -> None:
    rows = [[str(path), size(path.stat().st_size)] for path in done.files.values()]
    print_table(["file", "size"], rows)
    print_line(f"{counted(done.num_items, 'item')}, vectors of {done.dimensions} dimensions")
    if done.onnx is not None:
        print_line(
            f"ONNX: queries differ from PyTorch's by at most {done.onnx.difference:.1e}, and reach "
            f"{done.onnx.largest:.1f} ({counted(done.onnx.histories, 'random history', 'random histories')})"
        )
    if done.index is not None:
        how = "exact search" if done.index.kind == "flat" else "approximate search (HNSW)"
        print_line(
            f"index: {how}, recall@10 {done.index.recall_at_10:.4f}, recall@100 {done.index.recall_at_100:.4f} against "
            f"exact search (the histories of {counted(done.index.queries, 'user')})"
        )
