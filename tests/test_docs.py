from __future__ import annotations

from pathlib import Path

import pytest

from streams.docs.__main__ import main
from streams.docs.pages import PAGES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name):
    assert (ROOT / name).read_text("utf-8") == PAGES[name](), "run: python -m streams.docs"


def test_the_generator_writes_all_pages(tmp_path):
    main(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")) == sorted(PAGES)
