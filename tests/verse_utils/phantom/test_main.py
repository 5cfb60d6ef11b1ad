from verse_utils.phantom import __main__ as script


def test_the_command_writes_what_it_is_told(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(script, "write_phantom_dataset", lambda *arguments, **_: asked.append(arguments) or [0.5, 0.7])
    monkeypatch.setattr("sys.argv", ["phantom", "--output", str(tmp_path), "--training", "1", "--test", "0"])
    script.main()
    assert asked == [(tmp_path, {"training": 1, "validation": 2, "test": 0}, 0, 2)]
    assert capsys.readouterr().out == f"{tmp_path}: 2 phantoms; HU > 150 alone has a Dice of 0.60\n"
