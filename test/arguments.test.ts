import { expect, test } from "bun:test";
import { string, assert, property } from "fast-check";
import {
  blockArguments,
  byteCount,
  channelCount,
  HelpRequest,
  parseProgramArguments,
  seconds,
  sessionOptions,
  TRANSFER_OPTIONS,
  UsageError,
} from "../examples/arguments.ts";
import { fileNameOf } from "../examples/image_output.ts";

test("byteCount() reads suffixes as powers of 1024", () => {
  const texts = ["0", "512", "1K", "1.5k", "2M", "3G", "1T"];
  expect(texts.map((text) => byteCount("--n", text))).toEqual([
    0,
    512,
    1024,
    1536,
    2 * 1024 ** 2,
    3 * 1024 ** 3,
    1024 ** 4,
  ]);
  for (const text of ["", "-1", "1P", "M", "1 M", "1e3", "0x10", "99999999T"]) {
    expect(() => byteCount("--n", text)).toThrow(UsageError);
  }
});

test("channelCount() and seconds() accept nothing that is not one", () => {
  expect([undefined, "auto", "1", "255"].map((text) => channelCount(text))).toEqual([
    2,
    "auto",
    1,
    255,
  ]);
  for (const text of ["0", "256", "1.5", "-1", "", "all"]) {
    expect(() => channelCount(text)).toThrow(UsageError);
  }
  expect(seconds("--n", "0.25")).toBe(0.25);
  for (const text of ["0", "-1", "", "1s", "Infinity"]) {
    expect(() => seconds("--n", text)).toThrow(UsageError);
  }
});

test("blockArguments() ends an id at the first equals sign", () => {
  expect(blockArguments(["a=b=c", "/x=./y"])).toEqual([
    { idstr: "a", path: "b=c" },
    { idstr: "/x", path: "./y" },
  ]);
  for (const texts of [[], ["a"], ["=b"], ["a="], ["a=b", "a=c"], [`${"ü".repeat(128)}=b`]]) {
    expect(() => blockArguments(texts)).toThrow(UsageError);
  }
});

test("sessionOptions() passes on what was given and turns seconds into milliseconds", () => {
  const parse = (args: string[]) => sessionOptions(parseProgramArguments(TRANSFER_OPTIONS, args));
  expect(parse([])).toEqual({
    channels: 2,
    compression: { method: "none" },
    uuid: undefined,
    timeouts: {},
  });
  const args = ["--compression", "zstd", "--level=-3", "--connect-timeout", "1.5"];
  expect(parse(args)).toMatchObject({
    compression: { method: "zstd", level: -3 },
    timeouts: { connectMs: 1500 },
  });
  const other = ["--compression", "qpl", "--level", "auto", "--engine", "libdeflate"];
  expect(parse(other)).toMatchObject({
    compression: { method: "qpl", level: "auto", engine: "libdeflate" },
  });
  expect(() => parse(["--engine", "lzma"])).toThrow(UsageError);
  expect(() => parse(["-h"])).toThrow(HelpRequest);
  expect(() => parse(["--json=yes"])).toThrow(UsageError);
});

test("fileNameOf() gives a name inside its directory that can be turned back", () => {
  assert(
    property(string({ unit: "grapheme", minLength: 1, maxLength: 20 }), (idstr) => {
      const name = fileNameOf(idstr);
      expect(name).toMatch(/^[\w%-][\w%.-]*$/);
      expect(decodeURIComponent(name)).toBe(idstr);
    }),
  );
  expect(fileNameOf("..")).toBe("%2E.");
  expect(fileNameOf("pc.ram")).toBe("pc.ram");
  expect(() => fileNameOf("/".repeat(86))).toThrow("the name has 258 bytes, at most 255");
});
