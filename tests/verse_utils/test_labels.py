from verse_utils.labels import label_values


def test_written_masks_bear_verse_labels_where_vertebrae_are_told_apart():
    assert label_values("binary").tolist() == [0, 1]
    assert label_values("regions").tolist() == [0, 1, 2, 3]
    assert label_values("vertebrae").tolist() == [0, *range(1, 20), 28, *range(20, 26)]
