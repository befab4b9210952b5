import { expect, test } from "bun:test";

import { RamBlock } from "../lib/memory/ram_block.ts";
import { digestSection } from "../lib/session/digests.ts";
import { deviceSummarySection } from "../lib/session/device_summary.ts";
import { isOwnSection } from "../lib/wire/own_sections.ts";
import { readerOf } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";

test("a section of our own is known by its name and read as it was written", () => {
  const block = RamBlock.allocate("pc.ram", 8 * 4096);
  const encoded = digestSection.encode([block]);
  const digest = digestSection.decode(readerOf(encoded)).get("pc.ram") ?? new Uint8Array(0);
  const expected = new Bun.CryptoHasher("sha256").update(new Uint8Array(8 * 4096)).digest("hex");
  expect(Buffer.from(digest).toString("hex")).toBe(expected);
  expect(isOwnSection(digestSection.header, digestSection)).toBe(true);
  expect(isOwnSection(digestSection.header, deviceSummarySection)).toBe(false);
});

test("a section of another release of the library is an error that names both versions", () => {
  const error = thrownBy(() =>
    isOwnSection({ ...digestSection.header, version: 1 }, digestSection),
  );
  expect(error).toMatchObject({
    code: "ERR_MULTIFD_STREAM_SECTION",
    message: expect.stringContaining("multifd/digests: its version is 1, must be 2") as string,
  });
});
