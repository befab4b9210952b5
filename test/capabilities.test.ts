import { expect, test } from "bun:test";

import { capabilities, type LibraryCapability, type MethodCapability } from "../mod.ts";
import { LimitMs } from "./kit/limits.ts";
import { runCommand } from "./kit/subprocess.ts";
import { bun } from "./setup/command.ts";

test("capabilities() names every library with its package, and why it is missing if it is", () => {
  const { libraries } = capabilities();
  const names = libraries.map(({ name }) => name);
  expect(names).toEqual([
    "libc",
    "libz",
    "libisal",
    "libdeflate",
    "libzstd",
    "libqpl",
    "libgnutls",
  ]);
  for (const { name, available, path, reason, debianPackage, override } of libraries) {
    expect(override).toStartWith("MULTIFD_LIB");
    expect(debianPackage).not.toBe("");
    if (available) expect(path).toContain(name);
    else expect(reason).toContain(debianPackage);
  }
});

test("capabilities() tells the version of the C library and of zlib, which every Debian has", () => {
  const { libraries } = capabilities();
  for (const name of ["libc", "libz"]) {
    const library = libraries.find((entry) => entry.name === name);
    expect(library?.version).toMatch(/^\d+\.\d+/);
  }
});

test("capabilities() tells who encrypts and with what, and that it cannot without its library", async () => {
  expect(capabilities().tls).toEqual({
    available: true,
    library: "libgnutls",
    protocol: "TLS 1.3",
    suites: ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
  });
  const code = `
    import { capabilities, listen } from "./mod.ts";
    const tls = { kind: "psk", keys: "qemu:" + "ab".repeat(32) };
    const failed = await listen({ endpoint: "127.0.0.1:0", tls }).catch((error) => error.code);
    console.log(JSON.stringify([capabilities().tls.available, failed]));
  `;
  const { stdout } = await runCommand([bun, "-e", code], {
    env: { MULTIFD_LIBGNUTLS: "/nonexistent/libgnutls.so.30" },
    timeoutMs: LimitMs.program,
  });
  expect(JSON.parse(stdout)).toEqual([false, "ERR_MULTIFD_LIBRARY"]);
});

test("capabilities() calls a library missing when its override names no library", async () => {
  const code = `
    import { capabilities } from "./mod.ts";
    const { libraries, methods } = capabilities();
    console.log(JSON.stringify([
      libraries.find(({ name }) => name === "libzstd"),
      methods.find(({ method }) => method === "zstd"),
    ]));
  `;
  const { stdout } = await runCommand([bun, "-e", code], {
    env: { MULTIFD_LIBZSTD: "/nonexistent/libzstd.so.1" },
    timeoutMs: LimitMs.program,
  });
  const [library, method] = JSON.parse(stdout) as [LibraryCapability, MethodCapability];
  expect(library.available).toBeFalse();
  expect(library.reason).toContain("/nonexistent/libzstd.so.1");
  expect(method.available).toBeFalse();
  expect(method.engines).toEqual([{ engine: "libzstd", library: "libzstd", available: false }]);
});
