"""The page that an expert decides from: suspicious labels with their photos, in one file without a network."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from cassava_leaf_disease.data.check_report import LabelConflict
from cassava_leaf_disease.data.cleaning import KEEP
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.audit.answers import AnsweredPhotos
from cassava_leaf_disease.evaluation.audit.confident import LabelIssues
from cassava_leaf_disease.imaging.data_uri import thumbnail_uri

THUMBNAIL_PX: Final = 320  # of the longer side; 15 kB a photo
SHORT_NAMES: Final = tuple(name.removeprefix("Cassava ") for name in CLASS_NAMES)

_Groups = Mapping[tuple[int, int], Sequence[int]]


def gallery_page(
    answers: AnsweredPhotos, issues: LabelIssues, conflicts: Sequence[LabelConflict], max_shown: int
) -> str:
    """HTML text: the confident joint, pictures under two labels, then suspicious labels by kind, the worst first.

    Reads the `max_shown` most suspicious photos and those of the `conflicts`.
    """
    order = issues.order.tolist()
    ranks = {row: rank for rank, row in enumerate(order, start=1)}
    suspicious = [row for row in order if issues.suspicious[row]]
    groups = group_rows(answers, issues, suspicious[:max_shown])
    template = (files(__package__) / "gallery.html").read_text(encoding="utf-8")
    parts = {
        "SUMMARY": _summary(answers, len(suspicious), max_shown),
        "MATRIX": _matrix(issues, groups),
        "CONFLICTS": _conflicts(answers, conflicts),
        "GROUPS": "\n".join(_group(answers, issues, ranks, kind, rows) for kind, rows in groups.items()),
    }
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part, 1)
    return template


def group_rows(answers: AnsweredPhotos, issues: LabelIssues, rows: Sequence[int]) -> _Groups:
    """`rows` by given and suggested class, their order kept; the largest groups first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        groups.setdefault((answers.photos[row].label, int(issues.suggested[row])), []).append(row)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def _summary(answers: AnsweredPhotos, suspicious: int, max_shown: int) -> str:
    lines = [
        f"<strong>{suspicious:,} of {len(answers.photos):,} labels</strong> look suspicious: a model that had not "
        "learned the photo is confident of another class."
    ]
    if suspicious > max_shown:
        lines.append(f"The {max_shown:,} most suspicious are shown; audit.csv ranks all of them.")
    if answers.in_test_part:
        lines.append(f"{answers.in_test_part:,} photos of the test part were not audited.")
    return f"<p>{' '.join(lines)}</p>"


def _matrix(issues: LabelIssues, groups: _Groups) -> str:
    """The confident joint as a table whose cells lead to the groups of photos."""
    head = "".join(f'<th scope="col">{name}</th>' for name in SHORT_NAMES)
    rows = []
    for given, counts in enumerate(issues.joint.tolist()):
        cells = []
        for suggested, count in enumerate(counts):
            shade = 0 if given == suggested else min(1.0, 4 * count / max(1, sum(counts)))
            shown = f'<a href="#{_anchor(given, suggested)}">{count}</a>' if (given, suggested) in groups else count
            kind = ' class="same"' if given == suggested else f' style="background:rgba(214,96,24,{shade / 2:.2f})"'
            cells.append(f"<td{kind}>{shown}</td>")
        rows.append(f'<tr><th scope="row">{SHORT_NAMES[given]}</th>{"".join(cells)}</tr>')
    corner = '<th class="corner">given label ↓ &nbsp; model confident of →</th>'
    return f'<table class="matrix"><thead><tr>{corner}{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _conflicts(answers: AnsweredPhotos, conflicts: Sequence[LabelConflict]) -> str:
    """Pictures under two labels, side by side; nothing where there are none."""
    if not conflicts:
        return ""
    photos = {photo.image_id: photo for photo in answers.table}
    pairs = []
    for conflict in conflicts:
        figures = "".join(
            _figure(photos[name], f"<p>label: <b>{SHORT_NAMES[label]}</b></p>")
            for name, label in zip(conflict.image_ids, conflict.labels, strict=True)
        )
        what = "the same file" if conflict.exact else "the same picture"
        pairs.append(f'<div class="pair"><p>{what}, different labels</p><div class="cards">{figures}</div></div>')
    return f"<h2>One picture, two labels ({len(conflicts)})</h2>\n" + "\n".join(pairs)


def _group(
    answers: AnsweredPhotos, issues: LabelIssues, ranks: Mapping[int, int], kind: tuple[int, int], rows: Sequence[int]
) -> str:
    given, suggested = kind
    title = f"{SHORT_NAMES[given]} → {SHORT_NAMES[suggested]}"
    said = f"Labelled {CLASS_NAMES[given]}; the model says {CLASS_NAMES[suggested]}."
    cards = "\n".join(_card(answers, issues, ranks[row], row) for row in rows)
    return (
        f'<section id="{_anchor(given, suggested)}"><h2>{title} <small>({len(rows)})</small></h2><p>{said}</p>'
        f'<div class="cards">{cards}</div></section>'
    )


def _card(answers: AnsweredPhotos, issues: LabelIssues, rank: int, row: int) -> str:
    photo = answers.photos[row]
    bars = "".join(_bars(photo.label, answers.probabilities[row].tolist()))
    return _figure(
        photo,
        f'<div class="bars">{bars}</div><p class="score">rank {rank}, label quality {issues.quality[row]:.3f}</p>'
        f"{_choices(photo, int(issues.suggested[row]))}",
    )


def _bars(given: int, probabilities: Sequence[float]) -> Iterator[str]:
    for label, probability in enumerate(probabilities):
        kind = "given" if label == given else "top" if probability == max(probabilities) else ""
        mark = " (label)" if label == given else ""
        yield (
            f'<span class="name {kind}">{SHORT_NAMES[label]}{mark}</span>'
            f'<span class="bar {kind}"><i style="width:{probability:.1%}"></i></span><span>{probability:.0%}</span>'
        )


def _choices(photo: LabeledPhoto, suggested: int) -> str:
    """What an expert may decide: with a pen on paper, or on the screen and saved as a table."""
    name = escape(photo.image_id, quote=True)
    classes = "".join(
        f'<option value="{label}"{" selected" if label == suggested else ""}>{SHORT_NAMES[label]}</option>'
        for label in range(len(CLASS_NAMES))
    )
    keep, relabel, leave_out = (
        f'<label><input type="radio" name="{name}" value="{value}"> {text}</label>'
        for value, text in ((KEEP, "label is right"), ("relabel", "it is:"), ("leave_out", "leave out"))
    )
    other = f'<span>{relabel} <select aria-label="the right class">{classes}</select></span>'
    return f'<fieldset data-image="{name}" data-label="{photo.label}">{keep}{leave_out}{other}</fieldset>'


def _figure(photo: LabeledPhoto, facts: str) -> str:
    name = escape(photo.image_id, quote=True)
    return (
        f'<figure><img src="{thumbnail_uri(photo.path, THUMBNAIL_PX)}" alt="{name}">'
        f'<figcaption><p class="id">{name}</p>{facts}</figcaption></figure>'
    )


def _anchor(given: int, suggested: int) -> str:
    return f"kind-{given}-{suggested}"
