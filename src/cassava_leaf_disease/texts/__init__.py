"""What is said to people in their own language: the same words on the page, in the bot, and in reports.

Each language has a file for advice about diseases (`advice.LANG.json`), and the page and the bot one each for their
own words. Facts on plant care are those of the sources in `facts.json`, in our own words.
"""
