/**
 * A key-value table that survives the process that writes it: a second process follows it checkpoint
 * by checkpoint, the first one is killed, and the second goes on from the last checkpoint.
 *
 *     bun examples/colo.ts
 *
 * or each side on its own: `--role secondary --listen ENDPOINT`, `--role primary --connect ENDPOINT`.
 *
 * @module
 */
import { writeSync } from "node:fs";
import {
  connectPrimary,
  listenSecondary,
  MultifdError,
  PageBitmap,
  RamBlock,
  trackDirtyPages,
  type FailOver,
} from "../mod.ts";
import {
  byteCount,
  endpoint,
  fromArguments,
  oneOf,
  parseProgramArguments,
  sessionOptions,
  TRANSFER_OPTIONS,
  TRANSFER_USAGE,
  wholeNumber,
} from "./arguments.ts";
import { ColoSide } from "./colo_side.ts";
import { decodeSeal, encodeSeal, KeyValueTable, type TableSeal } from "./colo_table.ts";
import { TableWriter } from "./colo_writer.ts";
import { runProgram } from "./program.ts";

const USAGE = `\
Usage: bun examples/colo.ts [options]

Starts a primary that keeps writing to a table and a secondary that follows it, kills the primary at
a random moment, and proves that the secondary holds exactly what the primary had at a checkpoint.
Ends with status 0 when it does.

  --role ROLE              both (default), primary or secondary
  --connect ENDPOINT       where a primary connects
  --listen ENDPOINT        where a secondary listens (default 127.0.0.1:0)
  --table BYTES            length of the table (default 8M)
  --delay MS               between two checkpoints (default 100)
  --kill-after MS          at most this long after the first checkpoint (default 2000)
${TRANSFER_USAGE}`;

const BLOCK = "table";
/** How long the new owner of the table writes to it, to show that it can. */
const GO_ON_MS = 200;

const OPTIONS = {
  ...TRANSFER_OPTIONS,
  role: { type: "string", default: "both" },
  connect: { type: "string" },
  listen: { type: "string", default: "127.0.0.1:0" },
  table: { type: "string", default: "8M" },
  delay: { type: "string", default: "100" },
  "kill-after": { type: "string", default: "2000" },
} as const;

type Arguments = ReturnType<typeof parseProgramArguments<typeof OPTIONS>>;

/** One line of JSON that is out before anything else happens, a kill included. */
function say(message: object): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

async function runPrimary(values: Arguments, signal: AbortSignal): Promise<void> {
  const memory = new SharedArrayBuffer(byteCount("--table", values.table));
  const block = await fromArguments(Promise.try(() => RamBlock.fromBuffer(BLOCK, memory)));
  await using writer = new TableWriter(memory);
  await using primary = await fromArguments(
    connectPrimary({
      ...sessionOptions(values),
      endpoint: endpoint("--connect", values.connect),
      blocks: [block],
      signal,
    }),
  );
  using tracker = await trackDirtyPages(block);
  say({ tracking: tracker.method });
  writer.run();
  await primary.start();
  const left = await primary.run({
    delayMs: wholeNumber("--delay", values.delay),
    capture: async () => {
      const seal = await writer.pause();
      // Said before it is sent: the witness must not know less than the secondary.
      say({ epoch: primary.epoch + 1, seal });
      const dirty = new PageBitmap(block.pages);
      await tracker.fetch(dirty);
      return { dirty, deviceState: encodeSeal(seal) };
    },
    resume: () => writer.run(),
  });
  const { checkpoints, pages, pauseMs } = primary.summary();
  say({ ended: left.epoch, cause: left.cause?.code ?? null, checkpoints, pages, pauseMs });
}

/** What a secondary says when it has taken over. */
interface Outcome {
  readonly epoch: number;
  readonly pending: FailOver["pending"] | null;
  readonly cause: string | null;
  /** What the table holds; null when it is a mixture. */
  readonly seal: TableSeal | null;
  /** Changes that the new owner has made since. */
  readonly wentOn: number;
}

async function runSecondary(values: Arguments, signal: AbortSignal): Promise<void> {
  await using secondary = await fromArguments(
    listenSecondary({
      ...sessionOptions(values),
      endpoint: endpoint("--listen", values.listen),
      signal,
    }),
  );
  say({ endpoint: secondary.endpoint });
  let seal: TableSeal | undefined;
  secondary.on("checkpoint", ({ deviceState }) => {
    seal = decodeSeal(deviceState);
  });
  const { epoch, pending, cause } = await secondary.ended();
  const [block] = secondary.blocks;
  if (block === undefined || seal === undefined) {
    throw new MultifdError("ERR_EXAMPLE", "Cannot take over: there was no checkpoint");
  }
  const found = KeyValueTable.inspect(block.view(0, block.bytes));
  const isWhole = found !== undefined && Bun.deepEquals(found.sums, seal.sums);
  const memory = block.segments[0]!.buffer!;
  await using writer = new TableWriter(memory, seal);
  writer.run();
  await Bun.sleep(GO_ON_MS);
  const { changes } = await writer.pause();
  say({
    epoch,
    pending: pending ?? null,
    cause: cause?.code ?? null,
    seal: isWhole ? seal : null,
    wentOn: changes - seal.changes,
  } satisfies Outcome);
}

async function runBoth(values: Arguments): Promise<void> {
  const passed = process.argv.slice(2);
  await using secondary = new ColoSide([...passed, "--role", "secondary"]);
  const { endpoint: place } = await secondary.hear(({ endpoint: said }) => said !== undefined);
  await using primary = new ColoSide([...passed, "--role", "primary", "--connect", String(place)]);
  // Then the first one is in place, and the table is no mixture any more.
  await primary.hear(({ epoch }) => epoch === 2);
  const killAfter = Math.random() * wholeNumber("--kill-after", values["kill-after"]);
  await Bun.sleep(killAfter);
  primary.process.kill("SIGKILL");
  await Promise.all([primary.ended(), secondary.ended()]);
  const outcome = (await secondary.hear(
    ({ wentOn }) => wentOn !== undefined,
  )) as unknown as Outcome;
  const witness = primary.said.find(({ epoch }) => epoch === outcome.epoch);
  const equal = outcome.seal !== null && Bun.deepEquals(witness?.["seal"], outcome.seal);
  console.log(
    `Primary killed after ${primary.said.filter((message) => "epoch" in message).length} checkpoints ` +
      `(changes found by ${String(primary.said[0]?.["tracking"])}); secondary holds number ${outcome.epoch}: ` +
      `${outcome.seal?.changes ?? "?"} changes, and made ${outcome.wentOn} more`,
  );
  if (values.json) console.log(JSON.stringify({ ...outcome, equal }));
  if (!equal) {
    throw new MultifdError(
      "ERR_EXAMPLE",
      `Cannot go on: the secondary's table is not what the primary had at checkpoint ${outcome.epoch}`,
    );
  }
}

await runProgram(USAGE, async (signal) => {
  const values = parseProgramArguments(OPTIONS);
  // Before any process is started.
  byteCount("--table", values.table);
  for (const name of ["delay", "kill-after"] as const) wholeNumber(`--${name}`, values[name]);
  switch (oneOf("--role", values.role, ["both", "primary", "secondary"])) {
    case "primary":
      return runPrimary(values, signal);
    case "secondary":
      return runSecondary(values, signal);
    case "both":
      return runBoth(values);
  }
});
