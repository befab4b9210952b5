/** The secondary of bench/colo.ts, in a process of its own. */

import { listenSecondary } from "../mod.ts";
import { libraryCompression } from "./ours_transfer.ts";
import { count, readSettings, text } from "./settings.ts";

const { channels, compression, level } = readSettings({
  channels: count(4),
  compression: text("none"),
  level: count(1),
});

await using secondary = await listenSecondary({
  endpoint: "127.0.0.1:0",
  channels,
  compression: libraryCompression(compression, level),
  prefault: true,
});
console.log(JSON.stringify({ endpoint: secondary.endpoint }));
const { epoch } = await secondary.ended();
const { pauseMs } = secondary.summary();
console.log(JSON.stringify({ epoch, pauseMs }));
