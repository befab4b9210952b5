/** The secondary of bench/colo.ts, in a process of its own. */

import { parseArgs } from "node:util";
import { listenSecondary } from "../mod.ts";
import { libraryCompression } from "./ours_transfer.ts";

const { values } = parseArgs({
  options: {
    channels: { type: "string", default: "4" },
    compression: { type: "string", default: "none" },
    level: { type: "string", default: "1" },
  },
});

await using secondary = await listenSecondary({
  endpoint: "127.0.0.1:0",
  channels: Number(values.channels),
  compression: libraryCompression(values.compression, Number(values.level)),
  prefault: true,
});
console.log(JSON.stringify({ endpoint: secondary.endpoint }));
const { epoch } = await secondary.ended();
const { pauseMs } = secondary.summary();
console.log(JSON.stringify({ epoch, pauseMs }));
