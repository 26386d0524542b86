def run(b):
    return {}
