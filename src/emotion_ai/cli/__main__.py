from emotion_ai.cli import main

main()
