/**
 * The fast tier, for each save: every test file but those below. A new file belongs to it until it
 * proves to be slow. `test/run.ts` runs all of them.
 *
 * Arguments are passed on to `bun test`.
 */
import { bun, repositoryRoot, run } from "./setup/command.ts";

/** On two idle processors. */
const BUDGET_SECONDS = 15;
/** Nothing here waits for long; on a busy machine all of it takes longer. */
const TEST_TIMEOUT_MS = 20_000;

/** Files that took more than a second of processor time, or need a QEMU. */
const SLOW = [
  "attach",
  "bandwidth_limit",
  "blocking",
  "cancel",
  "codec/codec_changing_pages",
  "codec/codec_damage",
  "codec/codec_matrix",
  "codec/codec_transfer",
  "codec/codecs",
  "codec/level_auto",
  "colo",
  "colo_confirmation",
  "colo_kill",
  "confirmation",
  "cut_connections",
  "device_example",
  "device_receiver",
  "device_state",
  "disposed_blocks",
  "documents",
  "examples",
  "failure_reason",
  "file_opening",
  "fuzz/fuzz",
  "golden",
  "large_block",
  "leaks",
  "live_memory",
  "mapped_blocks",
  "memory_budget",
  "opaque_state",
  "output_file",
  "packaging",
  "page_server",
  "page_source",
  "progress",
  "ram_block",
  "receiver_faults",
  "rehearsal",
  "relay",
  "return_path_rule",
  "sender_faults",
  "snapshot",
  "snapshot_crash",
  "snapshot_limits",
  "snapshot_program",
  "snapshot_tools",
  "strangers",
  "surface",
  "sync_interleavings",
  "tls",
  "tls_faults",
  "tls_programs",
  "transfers",
];

const all = [...new Bun.Glob("test/**/*.test.ts").scanSync(repositoryRoot)].toSorted();
const slow = new Set(SLOW.map((name) => `test/${name}.test.ts`));
const gone = [...slow].filter((file) => !all.includes(file));
if (gone.length > 0) throw new Error(`Cannot leave out ${gone.join(", ")}: there is no such file`);
const fast = all.filter((file) => !slow.has(file) && !file.startsWith("test/qemu/"));

const startMs = performance.now();
process.exitCode = await run([
  bun,
  "test",
  "--parallel=2",
  `--timeout=${TEST_TIMEOUT_MS}`,
  "--no-orphans",
  ...fast.map((file) => `./${file}`),
  ...process.argv.slice(2),
]);
const seconds = (performance.now() - startMs) / 1000;
console.log(`${fast.length} of ${all.length} files in ${seconds.toFixed(1)} s`);
if (seconds > BUDGET_SECONDS) {
  console.log(`More than the ${BUDGET_SECONDS} s of this tier: a busy machine, or a file too slow`);
}
