import { expect, test } from "bun:test";
import { truncate } from "node:fs/promises";
import { array, assert, nat, property, record } from "fast-check";
import type { Statistics } from "../mod.ts";
import { ProgressMeter, progressLine } from "../examples/progress.ts";
import { formatBytes, formatSeconds } from "../examples/units.ts";
import { ExampleProgram, makeImage } from "./kit/example_program.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

const MIB = 1 << 20;

/** Statistics in which only what a progress bar looks at is real. */
function statisticsOf(
  ramBytes: number,
  pageBytes: number,
  channelBytes: number[] = [],
): Statistics {
  const rest = { packets: 0, normalPages: 0, zeroPages: 0, syncs: 0, idleMs: 0, transferMs: 0 };
  const channels = channelBytes.map((bytes) => ({ ...rest, bytes }));
  const wireBytes = channelBytes.reduce((sum, bytes) => sum + bytes, 0);
  return { ramBytes, pageBytes, wireBytes, zeroPages: 3, channels } as unknown as Statistics;
}

test("ProgressMeter.sample() never runs backwards nor reaches the end before end() does", () => {
  // Pages come in any number: none while a round waits, more than there is memory in later rounds.
  const steps = array(record({ ms: nat(1000), pageBytes: nat(100 * MIB) }), { minLength: 1 });
  assert(
    property(nat(200 * MIB), steps, (ramBytes, all) => {
      const meter = new ProgressMeter();
      let nowMs = 0;
      let before = 0;
      for (const { ms, pageBytes } of all) {
        nowMs += ms;
        const { fraction, secondsLeft, pageRate } = meter.sample(
          statisticsOf(ramBytes, pageBytes, [pageBytes]),
          nowMs,
        );
        expect(fraction).toBeGreaterThanOrEqual(before);
        expect(fraction).toBeLessThan(1);
        expect([secondsLeft, pageRate].some(Number.isNaN)).toBe(false);
        before = fraction;
      }
      expect(meter.end(statisticsOf(ramBytes, ramBytes), nowMs).fraction).toBe(1);
    }),
  );
});

test("ProgressMeter.sample() gives rates, the time that is left and the ratio", () => {
  const meter = new ProgressMeter();
  meter.sample(statisticsOf(100 * MIB, 0, [0, 0]), 5000);
  const sample = meter.sample(statisticsOf(100 * MIB, 20 * MIB, [4 * MIB, 6 * MIB]), 7000);
  expect(sample).toMatchObject({
    pageBytes: 20 * MIB,
    pageRate: 10 * MIB,
    secondsLeft: 8,
    ratio: 2,
    channelRates: [2 * MIB, 3 * MIB],
  });
  expect(progressLine(sample)).toBe(
    "20.0 MiB | 10.0 MiB/s | 8.00 s left | ratio 2.00 | 3 zero pages | 2.00 MiB/s 3.00 MiB/s",
  );
  const many = { ...sample, channelRates: [5, 1, 3, 2, 4].map((rate) => rate * MIB) };
  expect(progressLine(many)).toEndWith("| 5 channels, 1.00 MiB/s to 5.00 MiB/s");
});

test("formatBytes() and formatSeconds() change units where people would", () => {
  expect([0, 1023, 1024, 1023.9 * 1024, 99.96 * 1024, 1.5 * 1024 ** 4].map(formatBytes)).toEqual([
    "0 B",
    "1023 B",
    "1.00 KiB",
    "1024 KiB",
    "100 KiB",
    "1.50 TiB",
  ]);
  expect([0, 9.994, 17.4, 185, 3723, Infinity].map(formatSeconds)).toEqual([
    "0.00 s",
    "9.99 s",
    "17 s",
    "3:05",
    "1:02:03",
    "-",
  ]);
});

const lineOfRates =
  / [KM]iB \| .* [KM]iB\/s \| .* left \| ratio .* \| \d+ zero pages \| .*\/s .*\/s/;

for (const cancelled of [false, true]) {
  const name = cancelled ? "restores the terminal after SIGINT" : "shows a bar on a terminal";
  test(`examples/sender: ${name}`, async () => {
    using directory = new TemporaryFolder();
    const image = directory.file("image");
    await Bun.write(image, makeImage(MIB));
    await truncate(image, 4 * MIB);
    await using receiver = new ExampleProgram(
      "receiver",
      ["--listen", "127.0.0.1:0", "--json", "--output"].concat(directory.file("copy")),
    );
    const endpoint = await receiver.listening();
    const decoder = new TextDecoder();
    let screen = "";
    // What is to be cancelled must not be through before the signal comes.
    const limit = ["--max-bandwidth", cancelled ? "512K" : "2M"];
    const options = ["--connect", endpoint, "--block", `pc.ram=${image}`, ...limit];
    const sender = Bun.spawn([bun, `${repositoryRoot}/examples/sender.ts`, ...options], {
      terminal: {
        cols: 200,
        rows: 24,
        data: (_, bytes) => void (screen += decoder.decode(bytes, { stream: true })),
      },
    });
    const watchdog = setTimeout(() => sender.kill("SIGKILL"), 30_000);
    if (cancelled) {
      while (!lineOfRates.test(screen) && sender.exitCode === null) await Bun.sleep(20);
      sender.kill("SIGINT");
    }
    expect(await sender.exited).toBe(cancelled ? 1 : 0);
    clearTimeout(watchdog);
    const percents = [...screen.matchAll(/sending \[[#-]{24}\] (\d+)%/g)].map((match) =>
      Number(match[1]),
    );
    expect(percents.length).toBeGreaterThan(2);
    expect(percents).toEqual(percents.toSorted((left, right) => left - right));
    expect(percents.at(-1) === 100).toBe(!cancelled);
    expect(screen).toMatch(lineOfRates);
    // The cursor and line wrapping are off while the bar is there.
    const [hidden, shown] = ["\u001B[?25l", "\u001B[?25h"];
    expect(screen.lastIndexOf(shown)).toBeGreaterThan(screen.lastIndexOf(hidden));
    expect(screen.lastIndexOf("\u001B[?7h")).toBeGreaterThan(screen.lastIndexOf("\u001B[?7l"));
  });
}
