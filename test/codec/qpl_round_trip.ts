/**
 * Codes pages with engine libqpl there and back, in a process whose libqpl is the one of a test. With
 * argument `damage` the last payload is damaged, so that pages are still in flight when it fails.
 */
import { capabilities, PageStreamDecoder, PageStreamEncoder } from "../../mod.ts";
import { packetsOf, samplePages } from "./codec_pages.ts";

const pageSize = 4096;
const pages = 300;
const memory = samplePages(pageSize, pages);
const copy = new SharedArrayBuffer(memory.byteLength);
const qpl = capabilities().methods.find(({ method }) => method === "qpl");
let error = "none";
{
  using encoder = new PageStreamEncoder({ memory, compression: "qpl" });
  using decoder = new PageStreamDecoder({ memory: copy, compression: "qpl" });
  const packets = packetsOf(pages, 128);
  for (const packet of packets) decoder.decode(encoder.encode(packet), packet);
  if (process.argv[2] === "damage") {
    const packet = packets[0]!;
    const payload = Uint8Array.from(encoder.encode(packet));
    payload.fill(0xff, 4 * packet.length + 100, 4 * packet.length + 400);
    try {
      decoder.decode(payload, packet);
    } catch (caught) {
      error = (caught as Error).name;
    }
  }
}
const equal = Buffer.compare(Buffer.from(memory), Buffer.from(copy)) === 0;
console.log(JSON.stringify({ encoder: qpl?.encoder, decoder: qpl?.decoder, equal, error }));
