"""A reference page tells what it lacks, and is a table that Markdown understands."""

from melodi.reference.page import NOTE, Page, Section, code, sentence


def page(*sections: Section) -> Page:
    return Page(name="p", title="Title", text="Intro.", sections=sections)


def test_a_row_or_a_section_without_a_description_is_undocumented() -> None:
    """Blanks are no description; a section may have no rows."""
    told = Section(title="told", text="yes", rows=(("`a`", "what it is"),))
    half = Section(title="half", text="yes", rows=(("`b`", ""), ("`c`", "known"), ("`d`", " ")))
    bare = Section(title="bare", text=" ")
    assert page(told, half, bare).undocumented() == ("bare", "half `b`", "half `d`")


def test_a_page_is_headings_text_and_tables() -> None:
    """A bar inside a cell does not end it."""
    section = Section(
        title="part", text="About.", headings=("name", "meaning"), rows=(("`x`", "a | b"),)
    )
    assert page(section).to_markdown() == (
        f"# Title\n\n{NOTE}\n\nIntro.\n\n## part\n\nAbout.\n\n"
        "| name | meaning |\n| --- | --- |\n| `x` | a \\| b |\n"
    )


def test_a_docstring_over_several_lines_is_one_sentence() -> None:
    """Line breaks of the source are not those of the page."""
    assert sentence("  one\n    two ") == "one two"
    assert (code("x"), code("")) == ("`x`", "")
