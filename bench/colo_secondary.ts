/** The secondary of bench/colo.ts, in a process of its own. */

import { listenSecondary, type SecondaryOptions } from "../mod.ts";
import { BenchSide, sideOptions } from "./bench_process.ts";

const side = new BenchSide();
await using secondary = await listenSecondary({
  ...(sideOptions() as Partial<SecondaryOptions>),
  endpoint: "127.0.0.1:0",
  prefault: true,
});
side.report({ endpoint: secondary.endpoint });
await secondary.ended();
