"""What the glossary promises: every word of the domain, once, where one looks for it."""

import re
from dataclasses import fields
from pathlib import Path

from collectors.base import Origin
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import Quality, Status

PAGE = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = [term.strip("`") for term in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)]
ENTRIES = dict(zip(TERMS, re.split(r"^## .+$", PAGE, flags=re.MULTILINE)[1:], strict=True))


def test_words_stand_once_and_in_order() -> None:
    """Entries are alphabetical, capitals aside, and none is there twice."""
    assert sorted(TERMS, key=lambda term: term.lower().replace("_", " ")) == TERMS
    assert len(TERMS) == len(ENTRIES)


def test_every_entry_is_short() -> None:
    """One to four sentences each: a definition, not a chapter."""
    for term, text in ENTRIES.items():
        sentences = re.findall(r"\.(?=\s|$)", text)
        assert 1 <= len(sentences) <= 4, term


def test_every_stored_word_is_explained() -> None:
    """Each quality, origin, status and account has its entry or stands in that of its kind."""
    for word in (*Quality, *Origin):
        assert word.value in ENTRIES
    for word in Status:
        assert f"`{word.value}`" in ENTRIES["status"]
    for account in fields(MinuteAccounts):
        if account.name.endswith("_joules"):
            assert account.name.removesuffix("_joules").replace("_", " ") in ENTRIES


def test_a_kind_lists_its_words() -> None:
    """Quality and origin name their words from best to worst, as the code orders them."""
    for kind, words in (("quality", Quality), ("origin", Origin)):
        places = [ENTRIES[kind].index(f"`{word.value}`") for word in words]
        assert places == sorted(places)
