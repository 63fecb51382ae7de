"""What the pages say about the engine: its rungs on the ladder, and what engine_measures.py has measured."""

from __future__ import annotations

from typing import Any

from markdown_text import listed, markdown, wrap


def plain_rungs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rungs that the functions of `helpers` serve."""
    return [row for row in result["rungs"] if not row["engine"]]


def engine_rungs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rungs that the engine serves."""
    return [row for row in result["rungs"] if row["engine"]]


def weights_of(row: dict[str, Any]) -> str:
    """What the weights of an engine's rung are: fp32, bf16 or int8."""
    return row["name"].rpartition(" ")[2]


def engine_answers(result: dict[str, Any]) -> str:
    """A sentence on how many answers the engine leaves as they are."""
    rows = engine_rungs(result)
    counts = listed([f"{row['same_answers']} in {weights_of(row)}" for row in rows])
    trained = listed([f"{row['storyteller_same_answers']} in {weights_of(row)}" for row in rows])
    return (
        f"The engine reads the same packed weights in forwards of its own: {counts} of {result['requests']} answers "
        f"with random weights are those of the first rung, and {trained} of {rows[0]['storyteller_answers']} answers "
        "of the storyteller. "
    )


def engine_gain(result: dict[str, Any]) -> str:
    """A paragraph on what the engine gains over `run_continuous`."""
    rows = engine_rungs(result)
    beside = {row["name"]: row for row in plain_rungs(result)}[rows[0]["rung_before"]]
    seconds = listed([f"{row['median_s']:.1f} s in {weights_of(row)}" for row in rows])
    gains = listed([f"{row['times_the_rung_before']:.2f}" for row in rows])
    return (
        "**The engine.** One forward of the engine reads the prompts of newcomers together with the next tokens of the "
        f"rows that run already, so it needs {rows[0]['forwards']} forwards instead of {beside['forwards']}. On the "
        f"same packed weights the workload takes {seconds}, which is {gains} times as fast as continuous batching."
    )


def engine_targets(result: dict[str, Any]) -> str:
    """A row per target: what was measured, what was aimed at, and whether that was reached."""
    rows = [
        [
            row["what"],
            f"{row['measured']:.{decimals(row)}f}",
            f"{row['bound']} {row['target']:.{decimals(row)}f}",
            "yes" if row["met"] else "no",
        ]
        for row in result["targets"]
    ]
    table = markdown(["What", "Measured", "Aim", "Reached"], rows)
    machine = result["machine"]
    caption = wrap(
        "*Measured* is a ratio, the median over pairs of runs that took turns, except where a share is named. This run "
        f"had {machine['cpu threads']} threads on this processor: {machine['processor']}."
    )
    return f"{table}\n\n{caption}"


def decimals(row: dict[str, Any]) -> int:
    """How many decimals a target's numbers need: shares are small, and answers and rows are counted."""
    if isinstance(row["measured"], int):
        return 0
    return 3 if row["target"] < 0.1 else 2


def engine_reading(result: dict[str, Any]) -> str:
    """What the measurements say, a paragraph each: where the time goes, pages, chunks, sampling."""
    parts = result["parts"]
    paragraphs = [
        where_the_time_goes(parts),
        pages_or_slots(parts["slots"]),
        what_chunks_cost(parts["chunks"]),
        what_sampling_costs(parts["overheads"], parts["lora"]),
    ]
    return "\n".join(wrap(f"- {paragraph}", indent="  ") for paragraph in paragraphs)


def where_the_time_goes(parts: dict[str, Any]) -> str:
    """A decode step at GPT-2's size, taken apart; and what that says about the engine's lead."""
    speed, step = parts["speed"], parts["pieces"]["packed fp32"]
    large, small = (speed[f"{model}, packed fp32"]["times_as_fast"] for model in ("GPT-2's size", "storyteller"))
    shares = {name: piece["seconds"] / step["step_s"] for name, piece in step["pieces"].items()}
    products = sum(share for name, share in shares.items() if "Packed" in name)
    attention = sum(share for name, share in shares.items() if name.startswith("attention"))
    return (
        f"**The speed.** On the same packed weights the engine is {large:.2f} times as fast as `run_continuous` at "
        f"GPT-2's size and {small:.2f} times on the storyteller. Of a decode step of 8 rows at GPT-2's size the "
        f"products with packed weights take {products * 100:.0f} %, attention {attention * 100:.0f} % and everything "
        f"else {(1 - products - attention) * 100:.0f} %. `run_continuous` computes the same products with the same "
        "kernels, so the engine can save only in the smaller two parts."
    )


def pages_or_slots(slots: dict[str, Any]) -> str:
    """A decode step with keys and values in pages, beside one with contiguous slots."""
    said = [
        f"At {size_of(name)} a step of 8 rows with pages takes {rows['64']['pages_over_slots']:.2f} times as long "
        f"with 64 tokens of context, and {rows['1500']['pages_over_slots']:.2f} times with 1,500."
        for name, rows in slots.items()
    ]
    return (
        "**Pages or slots.** Keys and values in pages have to be gathered at every step, and in contiguous slots they "
        f"lie ready. {' '.join(said)} The engine keeps pages, because only they can be shared by several requests."
    )


def size_of(name: str) -> str:
    """A size as it reads in a sentence."""
    return name.replace("storyteller's size, Llama", "the Llama storyteller's size")


def what_chunks_cost(chunks: dict[str, Any]) -> str:
    """The longest gap of the others and the newcomer's own wait, with the smallest and the largest step."""
    said = []
    for name, rows in chunks.items():
        small, whole = rows[0], rows[-1]
        said.append(
            f"At {size_of(name)}, with {small['step_tokens']} tokens per step, the longest gap is "
            f"{small['longest_gap_in_ordinary_steps']:.1f} ordinary steps, and the newcomer waits "
            f"{small['ttft_s']:.1f} s for its first token. In one piece it is "
            f"{whole['longest_gap_in_ordinary_steps']:.0f} steps and {whole['ttft_s']:.1f} s"
        )
    return f"**Chunks have a price.** A prompt of 1,500 tokens arrives among 7 decoding rows. {'. '.join(said)}."


def what_sampling_costs(overheads: dict[str, Any], lora: dict[str, Any]) -> str:
    """Where the small parts of a step are no longer small."""
    shares = {kind: rows["10"]["share"] * 100 for kind, rows in overheads.items()}
    slow = lora["storyteller"]["speed"]
    return (
        "**Sampling.** Scheduling, blocks and the choice of the token are "
        f"{shares['greedy']:.1f} % of a greedy step at GPT-2's size, {shares['temperature']:.0f} % of one that draws "
        "with a temperature, and "
        f"{shares['temperature and top-p']:.0f} % with top-p. The probabilities are computed in float64, a row at a "
        "time, so that an answer does not depend on its neighbours. Over random weights nearly all of the 50,257 "
        "tokens belong to the nucleus and have to be sorted, which is the worst case. Four adapters cost more on a "
        f"small model (speed {slow:.2f}), where a step is many small operations and each adapter adds some."
    )
