"""The shape behind HTTP: no queue, an AsyncSprocket, base64 in and out, under the path that it names."""

import asyncio
import base64

import sprocket


class Tones(sprocket.AsyncSprocket):
    async def setup(self) -> None:
        self.gain = 2
        await asyncio.sleep(0)

    async def predict(self, args: dict) -> dict:
        audio = args.get("audio_data")
        if not audio:
            return {"error": "no audio_data"}
        samples = bytes(min(255, sample * self.gain) for sample in base64.b64decode(audio))
        return {"audio_data": base64.b64encode(samples).decode(), "samples": len(samples)}


if __name__ == "__main__":
    sprocket.run(Tones(), "shape-web", predict_path="/v1/tones")
