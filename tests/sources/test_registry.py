from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source, source_info, source_names
from medground_bench.sources._tables import check_box, parse_box, read_table


def test_every_source_states_its_facts() -> None:
    open_ones = ("nih_cxr14", "chestx_det", "rsna", "phantom", "planted")
    assert source_names() == ("imagenome", "vindr_cxr", "padchest_gr", *open_ones)
    for name in source_names():
        info = source_info(name)
        assert info.key == name
        assert info.layout
        assert info.obtain
        assert info.licence
    needed = {n: source_info(n).largest_index for n in source_names()}
    released = {"imagenome": 1404, "vindr_cxr": 2107, "padchest_gr": 2647}
    assert needed == {name: released.get(name) for name in source_names()}
    assert [n for n in source_names() if source_info(n).credentialed] == [
        "imagenome",
        "vindr_cxr",
        "padchest_gr",
        "planted",
    ]


def test_unknown_source() -> None:
    with pytest.raises(SourceError, match="unknown source 'mimic'") as caught:
        open_source("mimic", ".")
    assert "imagenome" in (caught.value.expected or "")


@pytest.mark.parametrize("name", source_names())
def test_wrong_folders_say_what_is_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(name, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="not a folder"):
        open_source(name, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="was not found") as caught:
        open_source(name, tmp_path / "empty")
    assert caught.value.where == str(tmp_path / "empty")
    assert "medground-bench sources" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "empty", None),
        ("a,b\n1,2\n", r"missing column\(s\): c", 1),
        ("a,b,c\n1,2,3\n4,5\n", "2 fields", 3),
        ("a,b,c\n1,2,3,4\n", "4 fields", 2),
        ('a,b,c\n1,"2,3\n4,5,6\n', "quote", 2),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, message: str, line: int | None) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        list(read_table(path, ("a", "c")))
    assert caught.value.where == (str(path) if line is None else f"{path}:{line}")


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,c\n\xff\xfe,1\n")
    with pytest.raises(SourceError, match="UTF-8"):
        list(read_table(path, ("a", "c")))


def test_tables_keep_line_numbers_and_column_choice(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffb,a\r\n1,x\r\n\r\n2,y\r\n")
    assert [(r.line, r.fields) for r in read_table(path, ("a",))] == [(2, ("x",)), (4, ("y",))]


def test_quoted_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text('a\tb\n1\t"two\nlines, ""quoted"""\n2\t5" tube\n')
    rows = [(r.line, r.fields) for r in read_table(path, ("b", "a"), delimiter="\t")]
    assert rows == [(2, ('two\nlines, "quoted"', "1")), (4, ('5" tube', "2"))]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[1, 2, 3, 4]", (1, 2, 3, 4)),
        ("1 2 3.5 4", (1, 2, 3.5, 4)),
        ("(1e1,2,30,.5e2)", (10, 2, 30, 50)),
        ("[-1, 2, 3, 4]", (-1, 2, 3, 4)),
        ("[1, 2, 3, 4, 5]", None),
        ("[1, 2, 3, x]", None),
        ("[1, 2, 1, 4]", None),
    ],
)
def test_parse_box(text: str, box: tuple[float, ...] | None) -> None:
    result = parse_box(text)
    assert result.box == box
    assert (result.problem is None) == (box is not None)


def test_rounding_is_half_to_even() -> None:
    assert check_box((0.5, 1.5, 2.5, 3.5), rounded=True).box == (0, 2, 2, 4)


def test_enumerating_imports_nothing_heavy() -> None:
    code = (
        "import sys; from medground_bench.sources import open_source, source_info; source_info('padchest_gr');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pydicom', 'datasets', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
