"""The tables of README and of the note on the ladder, and the sentences that say what they mean.

They come from what ladder.py, peers.py, engine_measures.py and load.py have measured, and from what the lessons have
predicted.

    python benchmarks/report.py            print them
    python benchmarks/report.py --write    put them into README.md and notes/Ladder.md, and draw their figures again

On those pages each of them stands between two comments, `<!-- measured: NAME -->` and `<!-- end -->`. Whatever anybody
writes between the two by hand is replaced. A test holds the pages equal to what this program prints.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from markdown_text import listed, markdown, wrap
from report_engine import engine_answers, engine_gain, engine_reading, engine_targets, plain_rungs
from report_load import generators_table, load_reading, load_targets
from scoreboards import Scoreboard, saved_scoreboards

RESULTS = Path(__file__).resolve().parent / "results"
BASELINES = {"fp32": "ours-packed", "bf16": "ours-packed-bf16", "int8": "ours-packed-int8-head"}  # of the ratios


def read(name: str) -> dict[str, Any]:
    """One results file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


# --- The ladder --------------------------------------------------------------------------------------


def ladder_table(result: dict[str, Any]) -> str:
    """A row per rung: how long, how much faster, and how many answers are still those of the first rung."""
    header = ["", "Seconds", "Tokens/s", "Times the first", "Forwards"]
    header += ["Same answers, random weights", "Same answers, storyteller"]
    rows = [
        [
            row["name"],
            f"{row['median_s']:.1f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['times_the_first']:.1f}",
            f"{row['forwards']}",
            f"{row['same_answers']} of {result['requests']}",
            f"{row['storyteller_same_answers']} of {row['storyteller_answers']}",
        ]
        for row in result["rungs"]
    ]
    row = result["server"]
    rows.append(
        [
            row["name"],
            f"{row['median_s']:.1f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['times_the_first']:.1f}",
            "",
            f"{row['same_answers']} of {result['requests']}",
            "",
        ]
    )
    return markdown(header, rows)


def answers_text(result: dict[str, Any]) -> str:
    """How many tokens change, on which model, and what that does not say."""
    exact, rounded = ([row for row in plain_rungs(result) if row["exact"] is wanted] for wanted in (True, False))
    requests, sample = result["requests"], result["storyteller_sample"]
    fewest = min(row["same_answers"] for row in exact)
    unchanged = "not one token changes" if fewest == requests else f"{fewest} of {requests} answers stay the same"
    random_weights = listed([f"{row['same_answers']} with {short_name(row)}" for row in rounded])
    trained = listed([f"{row['storyteller_same_answers']} with {short_name(row)}" for row in rounded])
    return wrap(
        f"Down to the rung *{exact[-1]['name']}*, {unchanged}. The rungs below it round the weights, and rounding can "
        f"change an answer. The model that is timed has random weights. Of its {requests} answers, {random_weights} "
        "stay the same. But random weights say little about text. So the storyteller, which has "
        f"learned to write, answers {rounded[0]['storyteller_answers']} prompts on the same rungs (each begins with "
        f"{sample['answers_begin_with_tokens']} given tokens and gets up to {sample['answers_have_tokens_at_most']} "
        f"new ones). Of these answers, {trained} stay the same. {engine_answers(result)}The storyteller has about six "
        "million parameters; "
        "the same rounding may change more answers of a larger model, or fewer. In bf16, and on a GPU, a token may "
        "also change with the number of rows in the batch, because another kernel may then add up the same numbers in "
        "another order."
    )


def short_name(row: dict[str, Any]) -> str:
    """A rung of rounded weights, named by the numbers that its weights are: bf16 or int8."""
    return next(kind for kind in ("bf16", "int8") if kind in row["name"])


def static_batches_text(result: dict[str, Any], lesson_2: str = "Lesson_2.md") -> str:
    """Whether static batches gain or lose here, and the two measurements that explain it."""
    rungs, slots = by_name(result), result["workload"]["slots"]
    alone, static, packed = rungs["KV cache"], rungs["static batches"], rungs["packed weights, fp32"]
    useful = result["tokens"] / (static["forwards"] * slots)
    count = f"{static['forwards']} forwards instead of {alone['forwards']}"
    seconds, seconds_alone = f"{static['median_s']:.1f} s", f"{alone['median_s']:.1f} s"
    verdict = (
        f"Here static batches are slower than no batches. They take {seconds}, and one request at a time with its "
        f"cache takes {seconds_alone}, although the batches need {count}. There are two reasons."
        if static["median_s"] > alone["median_s"]
        else f"Static batches take {seconds} instead of {seconds_alone}. This is less of a gain than {count} promise, "
        "for two reasons."
    )
    return (
        f"{verdict} Only {useful * 100:.0f} % of the places in those forwards make a token that somebody asked for. "
        f"And with the weights as they are stored, a step of {slots} rows takes {step_ratio(static, slots):.1f} times "
        "as long as a step of one row. That is how PyTorch's kernel works on fp32 weights in this layout, and it is "
        f"the same for `nn.Linear` as for GPT-2's own kind of layer ([Lesson 2]({lesson_2}) times both). With packed "
        f"weights a step of {slots} rows takes {step_ratio(packed, slots):.1f} times as long as a step of one row."
    )


def count_and_clock(result: dict[str, Any]) -> str:
    """A paragraph per rung: what counting promises, what the clock says, and where the two disagree."""
    rungs, workload, slots = by_name(result), result["workload"], result["workload"]["slots"]
    kv, static, continuous = rungs["KV cache"], rungs["static batches"], rungs["continuous batching"]
    packed, bf16, int8 = plain_rungs(result)[-3:]
    fewer = positions(workload, cached=False) / positions(workload, cached=True)
    one, many = ([row["decode_step_s"][rows] * 1e3 for row in (continuous, packed)] for rows in ("1", str(slots)))
    paragraphs = [
        f"**KV cache.** Over all {result['requests']} requests the model has {fewer:.0f} times fewer tokens to work "
        "on. (Lesson 0 counts one of the long answers, which gains more than a short one.) But the time falls only by "
        f"a factor of {kv['times_the_rung_before']:.1f}, because a forward over one token has to read all the weights, "
        "just as a forward over fifty has.",
        f"**Batching.** {static_batches_text(result)}",
        f"**Continuous batching.** The count of forwards promises {static['forwards']} / {continuous['forwards']} = "
        f"{static['forwards'] / continuous['forwards']:.1f} times, and the clock measures "
        f"{continuous['times_the_rung_before']:.1f}.",
        "**Packed weights.** These are the same numbers in another order in memory, the order in which the kernel "
        f"reads them. A step of one row takes {one[1]:.1f} ms instead of {one[0]:.1f}, and a step of {slots} rows "
        f"{many[1]:.1f} ms instead of {many[0]:.1f}.",
        f"**bf16 and int8.** A forward reads {megabytes(bf16)} MB of weights in bf16 and {megabytes(int8)} MB in int8 "
        f"instead of {megabytes(packed)} MB. The time falls less, from {packed['median_s']:.1f} s to "
        f"{bf16['median_s']:.1f} and {int8['median_s']:.1f}, because not everything is weights: attention, some "
        "hundred small operations and the search for the largest of 50,257 logits do not shrink with them. The int8 "
        "of this rung rounds the output head too; the count of megabytes in Lesson 0 leaves the head in fp32.",
        engine_gain(result),
        f"**The server.** Behind HTTP, with all {result['requests']} requests sent at once and answers streamed, the "
        f"same engine takes {1 / result['server']['times_the_rung_before']:.2f} times as long.",
    ]
    return "\n".join(wrap(f"- {paragraph}", indent="  ") for paragraph in paragraphs)


def positions(workload: dict[str, int], *, cached: bool) -> int:
    """Positions that the model works on for all requests, each served alone."""
    total, prompt = 0, workload["prompt_tokens"]
    for index in range(workload["requests"]):
        budget = workload["long_tokens"] if index % workload["every"] == 0 else workload["short_tokens"]
        total += prompt + budget - 1 if cached else prompt * budget + budget * (budget - 1) // 2
    return total


def decode_step_table(result: dict[str, Any]) -> str:
    """A row per kind of weights: one decode step, its floor, the memory of the process, and what text costs."""
    slots = str(result["workload"]["slots"])
    header = ["Weights", "1 row, ms", f"{slots} rows, ms", "Floor, ms", "1 row / floor", "Resident, MB"]
    header += ["Perplexity, storyteller", "Same answers, storyteller", "Same answers, random weights"]
    rows = [
        [
            row["name"].replace("continuous batching", "as they are, fp32").replace(" weights", ""),
            f"{row['decode_step_s']['1'] * 1e3:.1f}",
            f"{row['decode_step_s'][slots] * 1e3:.1f}",
            f"{row['floor_of_a_forward_s'] * 1e3:.1f}",
            f"{row['decode_step_s']['1'] / row['floor_of_a_forward_s']:.1f}",
            f"{row['resident_bytes'] / 1e6:.0f}",
            f"{row['storyteller_perplexity']:.4f}",
            f"{row['storyteller_same_answers']} of {row['storyteller_answers']}",
            f"{row['same_answers']} of {result['requests']}",
        ]
        for row in result["rungs"][3:]
    ]
    return markdown(header, rows)


def decode_step_caption(result: dict[str, Any]) -> str:
    """What the columns of `decode_step_table` mean."""
    bandwidth = result["bandwidth_bytes_per_s"] / 1e9
    before, after = (value / 1e9 for value in result["bandwidth_before_and_after_bytes_per_s"])
    sample, card = result["storyteller_sample"], model_card()
    return wrap(
        "*Floor* is the shortest time in which the memory can deliver the weights: their bytes divided by a bandwidth "
        f"of {bandwidth:.1f} GB/s. That is the better of two measurements in the same run ({before:.1f} and "
        f"{after:.1f} GB/s; on a shared machine the bandwidth varies). *Resident* is how much more memory the "
        "process takes once it has loaded the model. Packed models hold the embedding twice: once to look tokens up, "
        f"and once packed for the output head. *Perplexity* is that of the storyteller on {sample['documents']} "
        f"held-out documents ({sample['tokens']:,} tokens). Other samples give different numbers: on the "
        f"{card['documents']:,} documents of the model card it is {card['perplexity']:.2f}, and Lesson 4 takes a "
        f"sample of its own. All this was measured on this processor: {result['machine']['processor']}."
    )


def model_card() -> dict[str, Any]:
    """The storyteller's perplexity as its card gives it, and on how many documents."""
    evaluation = json.loads((ROOT / "models" / "storyteller" / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation["held_out"]["all"]


# --- The peers ---------------------------------------------------------------------------------------


def peers_reading(result: dict[str, Any]) -> str:
    """Each system beside ours that works like it, and only then the rest."""
    rows = {row["key"]: row for row in result["systems"]}

    def times(key: str, ours: str | None = None) -> str:
        return f"{rows[key]['times_ours'][ours or rows[key]['like']]:.2f}"

    return wrap(
        "A comparison is fair only between systems that work alike. In fp32, with static batches, `generate` takes "
        f"{times('transformers-static')} times as long as this project and CTranslate2 {times('ctranslate2-fp32')} "
        "times. In fp32, with continuous batching on the same weights, transformers' manager takes "
        f"{times('transformers-manager')} times as long with 8 slots, which is the number that we use, and "
        f"{times('transformers-manager-open', 'ours-continuous')} times with as many slots as it chooses. "
        f"{near_ties(rows)}OpenVINO compiles the model before it serves it, and vLLM has its weights arranged for the "
        "processor when it loads them, so we compare these two with our engine on packed weights. OpenVINO takes "
        f"{times('openvino-fp32')} times as long as the engine in fp32, {times('openvino-bf16')} times in bf16 and "
        f"{times('openvino-int8')} times in int8. vLLM takes {times('vllm-fp32')} times as long in fp32 and "
        f"{times('vllm-bf16')} times in bf16. The engine itself takes {times('ours-engine')} times as long as "
        f"`run_continuous` on the same packed weights in fp32, {times('ours-engine-bf16')} times in bf16 and "
        f"{times('ours-engine-int8-head')} times in int8. Our packed model is faster than transformers, but only "
        f"because it is packed: transformers' manager takes {times('transformers-manager', 'ours-packed')} and "
        f"{times('transformers-manager-open', 'ours-packed')} times as long as it does."
    )


def near_ties(rows: dict[str, dict[str, Any]]) -> str:
    """A sentence on the systems of transformers that are slower than ours in one round and faster in another."""
    found = []
    for key, name in (("transformers-static", "`generate`"), ("transformers-manager", "the manager with 8 slots")):
        ours = rows[rows[key]["like"]]["seconds"]
        ratios = [theirs / mine for theirs, mine in zip(rows[key]["seconds"], ours, strict=True)]
        if min(ratios) < 1 < max(ratios):
            found.append(f"from {min(ratios):.2f} to {max(ratios):.2f} for {name}")
    if not found:
        return ""
    return f"From round to round the ratio goes {listed(found)}, so this run does not say which side is faster. "


def peers_table(result: dict[str, Any]) -> str:
    """A row per system, slowest first: how long, also beside ours that works like it and beside ours, packed."""
    header = ["System", "Weights", "Batching", "Seconds", "Times ours, alike", "Times ours, packed", "Same answers"]
    rows = []
    for row in sorted(result["systems"], key=lambda row: -row["median_s"]):
        like = row["times_ours"].get(row["like"])
        rows.append(
            [
                row["label"],
                row["precision"],
                row["batching"],
                f"{row['median_s']:.2f}",
                f"{like:.2f}" if like else "",
                f"{row['times_ours'][BASELINES[row['precision']]]:.2f}",
                f"{row['tokens']['equal_requests']} of {row['tokens']['requests']}",
            ]
        )
    return markdown(header, rows)


def peers_caption(result: dict[str, Any]) -> str:
    """What the columns of `peers_table` mean."""
    exact = all(
        row["tokens"]["equal_requests"] == row["tokens"]["requests"]
        for row in result["systems"]
        if row["precision"] == "fp32"
    )
    tokens = "Every fp32 system finds the same tokens." if exact else "Not every fp32 system finds the same tokens."
    return wrap(
        "*Times ours* says how many times as long as this project a system takes. The ratio is taken within each of "
        f"{result['rounds']} rounds, and the table shows the median of the ratios, which need not be the ratio of the "
        "medians. *Alike* compares with the system of ours that has the same slots, batching and precision: our engine "
        "on packed weights for OpenVINO and vLLM, `run_continuous` on packed weights for our engine, and our functions "
        "on weights as they are for the others. We have no static int8. *Packed* compares with `run_continuous` on "
        "our packed model in the same precision, whatever the other system does (in int8, the one whose output head is "
        f"rounded too). {tokens} OpenVINO differs from our engine in two ways that may explain its lead, which nobody "
        "here has tested: it compiles the whole forward into one graph, where our engine starts every operation from "
        "Python, and its int8 also computes in bf16 and keeps the cache in 8 bits where the processor can."
    )


# --- The predictions of the lessons ------------------------------------------------------------------


def predictions_table(boards: Sequence[Scoreboard]) -> str:
    """A row per lesson: how many predictions it makes, and how far off they are."""
    header = ["", "Predictions", "Counts and bytes, exact", "Within 1.1 times", "Over 1.1, within 1.5 times", "Missed"]
    rows = []
    for board in boards:
        exact = sum(row.exact for row in board.rows)
        near = sum(row.factor <= 1.1 and not row.exact for row in board.rows)
        missed = len(board.misses)
        counts = (len(board.rows), exact, near, len(board.rows) - exact - near - missed, missed)
        rows.append([board.lesson, *map(str, counts)])
    return markdown(header, rows)


def predictions_missed(boards: Sequence[Scoreboard]) -> str:
    """Every miss with its explanation, and whether an experiment of the lesson has tested it."""
    header = ["Lesson", "What", "Unit", "Predicted", "Measured", "Off by", "Why"]
    rows = [
        [
            board.lesson.removeprefix("Lesson "),
            row.what,
            row.unit,
            f"{row.predicted:.3g}",
            f"{row.measured:.3g}",
            f"{row.factor:.1f}",
            f"*tested:* {row.tested}" if row.tested else f"*a guess:* {row.guess}",
        ]
        for board in boards
        for row in board.misses
    ]
    return markdown(header, rows) if rows else wrap("None of them misses by more than 1.5 times.")


# --- Numbers -----------------------------------------------------------------------------------------


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rungs by their names."""
    return {row["name"]: row for row in result["rungs"]}


def step_ratio(row: dict[str, Any], rows: int) -> float:
    """The time of a decode step with this many rows, divided by the time of a step with one row."""
    return row["decode_step_s"][str(rows)] / row["decode_step_s"]["1"]


def megabytes(row: dict[str, Any]) -> str:
    """What one forward reads."""
    return f"{row['bytes_read_per_forward'] / 1e6:.1f}"


# --- The pages ---------------------------------------------------------------------------------------


class Block(NamedTuple):
    """What stands between two comments of a page: a function of a results file."""

    page: str
    make: Callable[[Any], str]
    results: str = ""  # a file in benchmarks/results, or "" for the scoreboards of the committed lessons

    @property
    def text(self) -> str:
        """What belongs there, with the comments around it."""
        results = read(self.results) if self.results else saved_scoreboards()
        return f"<!-- measured: {self.make.__name__} -->\n\n{self.make(results)}\n\n<!-- end -->"


LADDER_PAGE = "notes/Ladder.md"
BLOCKS = (
    Block("README.md", answers_text, "ladder-cpu.json"),
    Block(LADDER_PAGE, ladder_table, "ladder-cpu.json"),
    Block(LADDER_PAGE, count_and_clock, "ladder-cpu.json"),
    Block(LADDER_PAGE, answers_text, "ladder-cpu.json"),
    Block(LADDER_PAGE, decode_step_table, "ladder-cpu.json"),
    Block(LADDER_PAGE, decode_step_caption, "ladder-cpu.json"),
    Block(LADDER_PAGE, peers_reading, "peers-cpu.json"),
    Block(LADDER_PAGE, peers_table, "peers-cpu.json"),
    Block(LADDER_PAGE, peers_caption, "peers-cpu.json"),
    Block(LADDER_PAGE, engine_targets, "engine-cpu.json"),
    Block(LADDER_PAGE, engine_reading, "engine-cpu.json"),
    Block(LADDER_PAGE, load_targets, "load-cpu.json"),
    Block(LADDER_PAGE, load_reading, "load-cpu.json"),
    Block(LADDER_PAGE, generators_table, "generators-cpu.json"),
    Block(LADDER_PAGE, predictions_table),
    Block(LADDER_PAGE, predictions_missed),
)


def put_into(page: str, block: Block) -> str:
    """The page's text with this block as it should be. Raises ValueError if the page has no place for it."""
    start = re.escape(f"<!-- measured: {block.make.__name__} -->")
    changed, places = re.subn(f"{start}.*?<!-- end -->", lambda _: block.text, page, flags=re.DOTALL)
    if places != 1:
        raise ValueError(f"{block.page} has {places} places for {block.make.__name__}; it must have one")
    return changed


def write_pages(root: Path = ROOT) -> list[str]:
    """Put every block into its page. Returns the names of the pages that have changed."""
    changed = []
    for name in dict.fromkeys(block.page for block in BLOCKS):
        path = root / name
        old = text = path.read_text(encoding="utf-8")
        for block in BLOCKS:
            text = put_into(text, block) if block.page == name else text
        if text != old:
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(name)
    return changed


def draw_figures() -> list[str]:
    """Draw the figures of the ladder, the systems and the predictions again. Returns their names."""
    folder = ROOT / "notes" / "figures"
    sys.path[:0] = [str(folder), str(ROOT / "code")]
    from draw import DRAWINGS, draw_all

    beginnings = ("lesson_0_ladder", "ladder_page")
    draw_all(folder, beginnings)
    return [drawing.file_name for drawing in DRAWINGS if drawing.file_name.startswith(beginnings)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Tables and sentences from the benchmarks' results.")
    parser.add_argument("--write", action="store_true", help="put them into the pages, and draw the figures")
    if not parser.parse_args(arguments).write:
        print("\n\n".join(block.text for block in BLOCKS))
        return
    changed = [*write_pages(), *draw_figures()]
    print(f"written: {', '.join(changed)}")


if __name__ == "__main__":
    main()
