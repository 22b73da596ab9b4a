"""The smallest worker: one class, one method. Each job's payload goes in, what `predict` returns comes out."""

import sprocket


class Hello(sprocket.Sprocket):
    """Greets whoever the job names."""

    def predict(self, args: dict) -> dict:
        """Turn `{"name": "Ada"}` into `{"greeting": "Hello, Ada!"}`."""
        name = args.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError('say whom to greet: the payload needs a "name", for example {"name": "Ada"}')
        return {"greeting": f"Hello, {name.strip()}!"}
