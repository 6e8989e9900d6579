"""The texts of model cards: data, terms, use and limits."""

from emotion_ai.contract import Task

TITLES: dict[Task, str] = {
    "keypoints": "Keypoints: 15 points of a face",
    "emotion": "Emotion: one of {classes}, from a face",
}

_YOUTUBE_FACES = "5e1cb81415bb031aa5636e6438f7cc3d14b3c52d4ff85e98feb573eb27d22f9e"
_FER2013 = "94546ed3436fcb97f29abf226ee54e9a9bd71971b504f8bb326df0c76ec18b2e"

DATA = {
    _YOUTUBE_FACES: """\
Faces of YouTube Faces (68 points reduced to Kaggle's 15) and partly annotated faces of an MTFL-like set, gray, 96×96,
cropped like Kaggle's facial keypoints. The test faces show other people than the training faces. Part of the training
annotations is machine-made. The 298 test faces are frames of 25 people.

The labels that these weights were trained and calibrated on were 1.22 pixels too far right. The metrics above are on
corrected labels. A network trained with mirror images cannot learn such a shift, so on the old labels it counted as
error: RMSE 1.640 (1.579 to 1.711) with the same weights. It also widened the standard deviations, whose regions now
cover more than their level.""",
    _FER2013: """\
FER2013{without}: {classes} classes, 48×48, enlarged to 96×96. Training faces with the pixels of a test face
were removed before training. The labels are noisy: about a third differ from the majority of ten later annotators.
Disgust is rare (2 %), and its metrics are the least certain. The faces come from web searches and have no labels of
age, sex, skin tone or culture.""",
}
"""By the fingerprint of the training file; only the bundled weights' data are described."""

VOTES = """

The training targets mix each label with the FER+ votes (MIT licence) for the {classes} classes. Faces labelled {other} that at least half of the FER+ annotators saw as one of the {classes} were also trained on, never evaluated on."""  # noqa: E501

TERMS = {
    _YOUTUBE_FACES: "YouTube Faces and MTFL are for research only, and so are these weights.",
    _FER2013: "FER2013 comes under the terms of its competition; use these weights for research only.",
}

UNFIT: dict[Task, str] = {
    "keypoints": """\
Not suitable for: identification; measuring faces for medical or cosmetic purposes; assessing attention, tiredness or
health; decisions about people.""",
    "emotion": """\
Not suitable for: inferring what somebody feels, means or is; decisions about people, such as hiring, teaching and
proctoring, policing, insurance, credit or medical assessment; watching people without their consent; identification.
Inferring emotions at work and in education is prohibited in the European Union, except for medical or safety reasons
(Regulation (EU) 2024/1689, Article 5(1)(f)), for which these weights are not suitable either.""",
}

LIMITS: dict[Task, str] = {
    "keypoints": """\
Profiles, strongly turned faces, covered faces and faces cropped unlike the training faces are less accurate (see
Robustness). Expect larger errors on faces from other sources.

Bias: accuracy by age, sex or skin tone was not measured; the data have no such labels. Studies of other landmark
networks found larger errors on older faces, even at equal pose and resolution (arXiv:2604.06961), and on people with
dementia (arXiv:1905.07446). Expect the same here.""",
    "emotion": """\
{Classes} expressions, \
predicted from one gray picture without its context. What a face shows is not what a person feels: how
people express anger, disgust, sadness, happiness and surprise differs between cultures, situations and persons, and the
same face may go with several of them (Barrett et al. 2019, doi:10.1177/1529100619832930). {others}

Bias: differences between groups of age, sex, skin tone or culture were not measured. Others measured some: datasets
of expressions are skewed between groups (20 datasets, arXiv:2303.15889); where a dataset ties an expression to a
group, networks repeat it (arXiv:2503.03446); of six general models tried on FER2013 and three other datasets, the two
most accurate were the most biased (arXiv:2502.11049). A good mean accuracy does not imply good ones for all groups.""",
}
