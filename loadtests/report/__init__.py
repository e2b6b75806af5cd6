"""Reports: one HTML file that needs nothing else, and the same numbers as JSON.

`document` says what a report is made of, `page` writes it as HTML, `figures` draws runs. None of
them knows an experiment.
"""
