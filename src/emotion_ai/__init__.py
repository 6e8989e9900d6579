"""A face goes in; its 15 keypoints and its emotion come out."""
