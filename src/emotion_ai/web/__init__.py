"""The page that `emotion-ai web` shows; needs the extra [web]."""
