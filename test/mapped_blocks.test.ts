import { expect, test } from "bun:test";
import { existsSync, ftruncateSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { close } from "../ffi/libc.ts";
import { listen, RamBlock } from "../mod.ts";
import { makeMemfd } from "./kit/memfd.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { runCommand } from "./kit/subprocess.ts";
import { transfer } from "./kit/transfer.ts";
import { bun } from "./setup/command.ts";

const sharedFolder = "/dev/shm";
const pages = 300;

/** A file in shared memory, removed at the end. */
function sharedPath(name: string): Disposable & { readonly path: string } {
  const path = `${sharedFolder}/multifd-test-${process.pid}-${name}`;
  writeFileSync(path, new Uint8Array(pages * 4096));
  return { path, [Symbol.dispose]: () => unlinkSync(path) };
}

test.skipIf(!existsSync(sharedFolder))(
  "multifd/shm moves memory that another process has filled into memory that it shares (needs /dev/shm)",
  async () => {
    using from = sharedPath("from");
    using to = sharedPath("to");
    const program = `
      const { RamBlock } = await import('./mod.ts');
      const { fillBlock } = await import('./test/kit/page_content.ts');
      using block = RamBlock.map("pc.ram", ${JSON.stringify(from.path)}, { writable: true });
      fillBlock(block, 8);`;
    expect((await runCommand([bun, "-e", program])).status).toBe(0);
    const expected = RamBlock.allocate("pc.ram", pages * 4096);
    fillBlock(expected, 8);
    {
      using source = RamBlock.map("pc.ram", from.path);
      using target = RamBlock.map("pc.ram", to.path, { writable: true });
      await transfer({
        both: { compression: "zstd" },
        sender: { blocks: [source] },
        receiver: { blocks: [target] },
      });
      expect(differingPages(expected, target)).toEqual([]);
    }
    expect(Buffer.compare(readFileSync(to.path), expected.view(0, expected.bytes))).toBe(0);
  },
);

test("multifd/memfd receives into memory that has no name", async () => {
  const source = RamBlock.allocate("pc.ram", pages * 4096);
  fillBlock(source, 9);
  const fd = makeMemfd();
  ftruncateSync(fd, pages * 4096);
  using target = RamBlock.map("pc.ram", `/proc/self/fd/${fd}`, { writable: true });
  close(fd);
  target.view(0, target.bytes).fill(0x77);
  await transfer({ sender: { blocks: [source] }, receiver: { blocks: [target] } });
  expect(differingPages(source, target)).toEqual([]);
});

test("listen() refuses blocks that are mapped for reading only", async () => {
  const fd = makeMemfd();
  ftruncateSync(fd, 4096);
  using target = RamBlock.map("pc.ram", `/proc/self/fd/${fd}`);
  close(fd);
  const rejection = await listen({ endpoint: "127.0.0.1:0", blocks: [target] }).catch(
    (error: unknown) => error,
  );
  expect(rejection).toEqual(
    new TypeError(
      "Cannot receive into RAM block pc.ram: it is mapped for reading, must be writable",
    ),
  );
});
