import pytest

from tfcompress.model.tables import as_text, new_table, scaled


def test_new_table_aligns_numbers_right_and_ends_with_the_total():
    table = new_table(["Layer", "Weights"], numbers=["Weights"], total=["Total", "1,036"])
    table.add_row("head", "36")
    lines = [line for line in as_text(table, width=30).splitlines() if line]
    assert [line.split() for line in lines if "──" not in line] == [
        ["Layer", "Weights"],
        ["head", "36"],
        ["Total", "1,036"],
    ]
    assert lines[2].rstrip().endswith("36") and len(lines[2]) == len(lines[3])


def test_new_table_folds_long_text_and_keeps_numbers_whole():
    table = new_table(["Layer", "Weights"], numbers=["Weights"])
    table.add_row("backbone/" * 5, "1,234,567")
    text = as_text(table, width=30)
    assert "1,234,567" in text
    assert "".join(text.split()).count("backbone/") >= 1
    assert all(len(line) <= 30 for line in text.splitlines())


def test_new_table_rejects_a_total_of_another_length():
    with pytest.raises(ValueError, match="argument"):
        new_table(["Layer", "Weights"], total=["Total"])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_600, "1.00 MB")],
)
def test_scaled_has_three_digits(number, text):
    assert scaled(number, "B") == text
