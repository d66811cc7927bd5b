"""The stored opening pictures are those that the script draws."""

import xml.etree.ElementTree as ElementTree

import pictures
import pytest


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_picture_is_up_to_date_and_well_formed(name):
    stored = (pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    message = "call: python tools/pictures.py"
    assert stored == pictures.picture(pictures.PICTURES[name]), message
    root = ElementTree.fromstring(stored)
    assert len(root.findtext("{http://www.w3.org/2000/svg}title").split()) > 3


def test_no_picture_is_left_over():
    assert {path.stem for path in pictures.FOLDER.iterdir()} == set(pictures.PICTURES)
