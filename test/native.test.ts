import { expect, test } from "bun:test";
import { addressOf, Arena, viewOfMemory } from "../ffi/arena.ts";
import { errnoName, openFile, unwrap } from "../ffi/libc.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

test("native structs keep their addresses in hot loops of 150000 rounds, with collections between", async () => {
  using folder = new TemporaryFolder();
  const result = await fixtureResult("hot_loops", [`${folder.path}/socket`]);
  expect(result).toMatchObject({ rounds: 150_000, wrong: { arena: 0, socket: 0, zstd: 0 } });
}, 90_000);

test("MULTIFD_LIBZSTD that names nothing gives an error with path, package and variable", async () => {
  const result = (await fixtureResult("missing_library", [], {
    env: { MULTIFD_LIBZSTD: "/nonexistent/libzstd.so" },
  })) as Record<string, { message: string }> & {
    methods: { method: string; engines: string[] }[];
  };
  expect(result["none"]).toEqual({ ok: true } as never);
  for (const side of ["listen", "connect"]) {
    expect(result[side]).toMatchObject({
      multifd: true,
      name: "MissingLibraryError",
      code: "ERR_MULTIFD_LIBRARY",
    });
    for (const part of ["/nonexistent/libzstd.so", "libzstd1", "MULTIFD_LIBZSTD"]) {
      expect(result[side]?.message).toContain(part);
    }
  }
  const zstd = result.methods.find(({ method }) => method === "zstd");
  expect(zstd?.engines).toEqual([]);
});

test("short memory is told as such, and not as a library that is missing", async () => {
  // Too little for libzstd or only for a thread; closer to nothing the runtime itself aborts.
  for (const left of [1_000_000, 4_000_000]) {
    const outcomes = await fixtureResult("short_memory", [String(left)]);
    const short = { multifd: true, name: "SystemError", code: "ERR_MULTIFD_SYSTEM" };
    expect(outcomes).toMatchObject({ listen: short, block: { ...short, errno: "ENOMEM" } });
  }
});

test("Arena.reserve() aligns, and refuses what does not fit", () => {
  const arena = new Arena(100);
  expect(arena.buffer.byteLength).toBe(4096);
  expect([arena.reserve(1), arena.reserve(1), arena.reserve(1, 8)]).toEqual([0, 64, 72]);
  expect(() => arena.reserve(4096)).toThrow(RangeError);
  expect(arena.reserve(4096 - 128)).toBe(128);
});

test("Arena words hold every address", () => {
  const arena = new Arena(64);
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 47 - 1, 2 ** 53 - 1]) {
    arena.setPointer(8, value);
    expect(arena.pointerAt(8)).toBe(value);
    expect(arena.view.getBigUint64(8, true)).toBe(BigInt(value));
  }
});

test("addressOf() and viewOfMemory() refuse what has no address", () => {
  expect(() => addressOf(new SharedArrayBuffer(0))).toThrow(RangeError);
  for (const [address, bytes] of [
    [0, 1],
    [-1, 1],
    [NaN, 1],
    [4096, 0],
    [4096, -1],
  ] as const) {
    expect(() => viewOfMemory(address, bytes)).toThrow(RangeError);
  }
});

test("libc wrappers return -errno, and unwrap() names it", () => {
  const status = openFile("/nonexistent/file", 0);
  expect([status, errnoName(-status)]).toEqual([-2, "ENOENT"]);
  expect(() => unwrap("Cannot open file", status)).toThrow(
    expect.objectContaining({
      code: "ERR_MULTIFD_SYSTEM",
      errno: "ENOENT",
      message: "Cannot open file: ENOENT",
    }),
  );
  expect(unwrap("Cannot open file", 7)).toBe(7);
  expect(errnoName(99_999)).toBe("errno 99999");
});
