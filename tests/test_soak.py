"""The soak run: its schedules hold, are the same again whenever they are run, and name the one that goes wrong."""

from __future__ import annotations

import re

import pytest

import soak
from engine import engine as engine_module
from test_engine_properties import SEEN


def test_some_dozen_schedules_hold_and_meet_what_is_interesting(capsys):
    assert soak.main(["--schedules", "45", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    seen = {words: int(count.replace(",", "")) for count, words in re.findall(r"^ *([\d,]+) (.+)$", said, re.MULTILINE)}
    assert seen["schedules without a fault"] == 45
    assert seen.keys() == {"schedules without a fault", *soak.COUNTED.values()}
    assert all(seen.values()), said
    assert seen[soak.COUNTED["compared"]] > 200


def test_a_schedule_is_always_the_same():
    logs, answers = [], []
    for number in (7, 7, 8):
        schedule = soak.Schedule(number)
        schedule.run()
        logs.append(schedule.log)
        answers.append([asked.ids for asked in schedule.machine.asked.values()])
    assert logs[0] == logs[1] != logs[2] and answers[0] == answers[1]
    assert logs[0][0].startswith("begin(rows=") and logs[0][-1] == "teardown()"


def test_the_schedule_that_goes_wrong_is_named_with_what_it_did(monkeypatch, capsys):
    right = engine_module.next_tokens

    def wrong(logits, requests, eos):
        tokens = right(logits, requests, eos)
        return [tokens[0] ^ 1, *tokens[1:]] if len(tokens) == 3 else tokens

    monkeypatch.setattr(engine_module, "next_tokens", wrong)
    assert soak.main(["--first", "100", "--schedules", "60", "--processes", "1"]) == 1
    said = capsys.readouterr().out
    number = int(re.search(r"schedule (\d+) went wrong, on \w+:\nbegin\(", said).group(1))
    assert f"{number - 100} schedules without a fault" in said
    assert "AssertionError" in said and f'SOAK_OPTIONS="--first {number} --schedules 1"' in said
    assert soak.main(["--first", str(number), "--schedules", "1", "--processes", "1"]) == 1
    monkeypatch.undo()
    assert soak.main(["--first", str(number), "--schedules", "1", "--processes", "1"]) == 0


def test_what_was_not_refused_is_a_fault_too(monkeypatch, capsys):
    monkeypatch.setattr(soak.Serving, "ask_what_cannot_be", lambda self, wrong: pytest.fail("DID NOT RAISE"))
    assert soak.main(["--schedules", "20", "--processes", "1"]) == 1
    assert "DID NOT RAISE" in capsys.readouterr().out


def test_ctrl_c_tells_what_was_done_and_how_to_go_on(monkeypatch, capsys):
    def interrupted(numbers):
        if numbers.start:
            raise KeyboardInterrupt
        SEEN.clear()
        return soak.Tally(len(numbers), soak.Counter(compared=1234))

    monkeypatch.setattr(soak, "run_schedules", interrupted)
    assert soak.main(["--schedules", "100", "--processes", "1"]) == 1
    said = capsys.readouterr().out
    assert "Interrupted." in said and "20 schedules without a fault" in said and "1,234 tokens compared" in said
    assert 'make soak SOAK_OPTIONS="--first 20 --schedules 80"' in said


@pytest.mark.parametrize("arguments", [["--schedules", "0"], ["--first", "-1"], ["--processes", "0"]])
def test_numbers_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        soak.main(arguments)
    assert f"{arguments[0]} is {arguments[1]}; it must be" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_see_what_one_sees(capsys):
    said = []
    for processes in ("1", "2"):
        assert soak.main(["--schedules", "41", "--processes", processes]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
