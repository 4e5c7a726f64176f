"""The floor: VADER, a lexicon and a few rules from 2014, no model at all."""

from __future__ import annotations

import functools

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

analyzer = functools.cache(SentimentIntensityAnalyzer)


def classify(text: str) -> dict:
    """Sentiment by VADER's own thresholds; its compound value in [-1, 1] stretched to the scale of the ratings."""
    compound = analyzer().polarity_scores(text)["compound"]
    sentiment = "pos" if compound >= 0.05 else "neg" if compound <= -0.05 else "neutral"
    return {"sentiment": sentiment, "score": round(4 * compound, 2)}
