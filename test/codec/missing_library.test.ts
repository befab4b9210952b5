/**
 * Engines whose library is not there: the next one is taken, or the error says what to install. Each
 * in a process of its own, since a library that was opened once stays.
 */
import { expect, test } from "bun:test";
import { LimitMs } from "../kit/limits.ts";
import { runCommand } from "../kit/subprocess.ts";
import { bun } from "../setup/command.ts";

const nowhere = "/nonexistent/library.so";

/** Resolves a compression with these libraries missing; what was chosen, or the error. */
async function resolveWithout(variables: readonly string[], compression: unknown): Promise<string> {
  const code = `
    import { PageStreamEncoder, PageStreamDecoder } from "./mod.ts";
    const options = {
      memory: new SharedArrayBuffer(4096), compression: ${JSON.stringify(compression)},
    };
    try {
      using encoder = new PageStreamEncoder(options);
      using decoder = new PageStreamDecoder(options);
      console.log(encoder.compression.engine + " " + decoder.compression.engine);
    } catch (error) {
      console.log(error.name + " " + error.code + " " + error.message);
    }
  `;
  const { stdout } = await runCommand([bun, "-e", code], {
    env: Object.fromEntries(variables.map((name) => [name, nowhere])),
    timeoutMs: LimitMs.program,
  });
  return stdout.trim();
}

const ISAL = "MULTIFD_LIBISAL";
const LIBDEFLATE = "MULTIFD_LIBDEFLATE";
const QPL = "MULTIFD_LIBQPL";

for (const [compression, missing, chosen] of [
  ["zlib", [ISAL], "libz libz"],
  ["qpl", [ISAL, LIBDEFLATE, QPL], "libz libz"],
  ["uadk", [ISAL, LIBDEFLATE], "libz libz"],
  ["qatzip", [ISAL, LIBDEFLATE], "libz libz"],
] as const) {
  test(`codec/${compression}: without ${missing.join(", ")} the next engine is taken`, async () => {
    expect(await resolveWithout(missing, compression)).toBe(chosen);
  });
}

for (const [compression, missing, packages] of [
  ["zstd", ["MULTIFD_LIBZSTD"], ["libzstd1"]],
  [{ method: "zlib", engine: "isal" }, [ISAL], ["libisal2", ISAL]],
  [{ method: "qpl", engine: "libqpl" }, [QPL], ["libqpl1", QPL]],
  ["zlib", [ISAL, "MULTIFD_LIBZ"], ["libisal2", "zlib1g"]],
] as const) {
  test(`codec/${JSON.stringify(compression)}: without ${missing.join(", ")} the error names the package`, async () => {
    const answer = await resolveWithout(missing, compression);
    expect(answer).toStartWith("MissingLibraryError ERR_MULTIFD_LIBRARY Cannot open ");
    for (const name of [...packages, nowhere]) expect(answer).toContain(name);
  });
}
