"""The web page of `emotion-ai web`; needs the extra [web]."""
