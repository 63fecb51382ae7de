"""Cards: a template filled from a file of measured numbers, so that the two cannot disagree."""

import json
from string import Template


def flatten(content: dict, prefix: str = "") -> dict[str, str]:
    """Template placeholders of nested numbers: {"stories": {"ended": 9}} gives {"stories_ended": "9"}."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{key}".replace(" ", "_")
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}_")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = f"{value:,}"
        elif isinstance(value, str):
            flat[name] = value
    return flat


def quote(text: str) -> str:
    """A text as an indented block of the card."""
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def continuation_section(continuations: list[dict]) -> str:
    """The continuations of the fixed prompts: a table row would not hold their line breaks."""
    parts = []
    for entry in continuations:
        parts += [f"Prompt: `{json.dumps(entry['prompt'])}`", "Greedy:", quote(entry["prompt"] + entry["greedy"])]
        parts += ["Sampled:", quote(entry["prompt"] + entry["sampled"])]
    return "\n\n".join(parts)


def held_out_table(held_out: dict[str, dict[str, float]]) -> str:
    """One line per kind of document."""
    lines = ["| documents | number | tokens | loss (nats per token) | perplexity |", "|---|---:|---:|---:|---:|"]
    for kind, row in held_out.items():
        lines.append(f"| {kind} | {row['documents']:,} | {row['tokens']:,} | {row['loss']} | {row['perplexity']} |")
    return "\n".join(lines)


def beside_table(held_out: dict[str, dict[str, float]], first: dict[str, dict[str, float]]) -> str:
    """The losses of two models on the same documents, one line per kind."""
    lines = ["| documents | number | this model | storyteller (GPT-2) |", "|---|---:|---:|---:|"]
    for kind, row in held_out.items():
        if row["documents"] != first[kind]["documents"]:
            return (
                f"The two were measured on different documents ({kind}); run the whole evaluation, without `--quick`."
            )
        lines.append(f"| {kind} | {row['documents']:,} | {row['loss']} | {first[kind]['loss']} |")
    return "\n".join(lines)


def memory_sections(evaluation: dict) -> dict[str, str]:
    """The tables of what a model remembers."""
    memory = evaluation["memory"]
    positions = [
        f"| {name} | {loss['all']} | {loss['within_paragraphs']} | {loss['opening']} |"
        for name, loss in memory["positions"].items()
    ]
    kinds = [
        f"| {kind} | {row['right']} of {row['asked']} | {row['right_percent']} % |"
        for kind, row in memory["books"]["kinds"].items()
    ]
    return {
        "beside_table": beside_table(evaluation["held_out"], evaluation["first_storyteller"]["held_out"]),
        "memory_table": held_out_table(memory["held_out"]),
        "position_table": "\n".join(
            [
                "| tokens | all tokens | all but the first of a paragraph | the first of a paragraph |",
                "|---|---:|---:|---:|",
                *positions,
            ]
        ),
        "fact_table": "\n".join(["| asked for | right | share |", "|---|---:|---:|", *kinds]),
    }


def render_card(evaluation: dict, template: str) -> str:
    """The model card: the template filled from the evaluation alone."""
    values = flatten(evaluation)
    if "memory" in evaluation:
        values |= memory_sections(evaluation)
    values["held_out_table"] = held_out_table(evaluation["held_out"])
    values["continuation_section"] = continuation_section(evaluation["continuations"])
    values["story_section"] = "\n\n".join(
        quote(story["prompt"] + story["continuation"]) for story in evaluation["sampled_stories"][:3]
    )
    return Template(template).substitute(values)
