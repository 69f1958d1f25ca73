#!/bin/sh
# PDFium gives a hyphen at the end of a line as U+0002 and no line break, and finds neither
# the whole word nor its first part with the hyphen.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pypdfium2==4.30.0 reportlab==4.4.4
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import pypdfium2
import reportlab
from reportlab.pdfgen import canvas

LINES = ["the place and infor-", "mation of the page", "and well-known words"]
page = canvas.Canvas("page.pdf", pagesize=(300, 200))
page.setFont("Helvetica", 12)
for number, line in enumerate(LINES):
    page.drawString(20, 150 - 16 * number, line)
page.save()

text = pypdfium2.PdfDocument("page.pdf")[0].get_textpage()
ranged, bounded = text.get_text_range(), text.get_text_bounded()
found = {word: text.search(word).get_next() for word in ("information", "infor-", "well-known")}
print(f"pypdfium2 {pypdfium2.V_PYPDFIUM2}, reportlab {reportlab.Version}: {ranged!r} {bounded!r} {found}")
assert ranged.startswith("the place and infor\x02mation of the page\r\n"), "PDFium's text has changed"
assert bounded.startswith("the place and infor\x02mation of the page\r\n"), "PDFium's text has changed"
assert found["information"] is None and found["infor-"] is None, "PDFium's search has changed"
assert found["well-known"] is not None
PYTHON
