"""The tab that shows model card, metrics and parity of a published version."""

import gradio as gr

from emotion_ai.web import render
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.components import PRIVATE
from emotion_ai.web.version_info import read_version_info


def build_model_tab(source: ModelSource, page: gr.Blocks) -> None:
    """Builds the tab inside a `gr.Tab`; it is filled when the page loads."""
    models, versions = source.models, [str(number) for number in reversed(source.versions)]
    if models is None or not versions:
        gr.HTML(
            render.notice(
                "Only the server is known",
                "Model card, metrics and parity report are stored in the published folder. Start the page with it: "
                "emotion-ai web MODELS --server URL.",
            )
        )
        return
    version = gr.Dropdown(versions, value=versions[0], label="Version")
    report, card = gr.HTML(elem_id="facts"), gr.Markdown(elem_classes="ea-card-text")

    def describe(number: str) -> tuple[str, str]:
        info = read_version_info(models, int(number))
        return render.version_report(info, int(number)), info.card or "*This version has no model card.*"

    gr.on([page.load, version.input], describe, version, [report, card], **PRIVATE)
