/** Everything that a user can name: a change of it is a change of docs/surface.txt, which a review sees. */
import { beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { LimitMs } from "./kit/limits.ts";
import { readSurface, SURFACE_FILE, type Surface } from "./kit/surface.ts";
import { repositoryRoot } from "./setup/command.ts";

let surface: Surface;

beforeAll(async () => {
  surface = await readSurface();
}, LimitMs.fixture);

test("surface: docs/surface.txt is what mod.ts exports; `bun run surface` writes it anew", () => {
  expect(readFileSync(join(repositoryRoot, SURFACE_FILE), "utf8")).toBe(surface.text);
});

test("surface: what a topic exports is what mod.ts exports by that name", () => {
  expect(surface.strays).toEqual([]);
});

test("surface: every type that an exported declaration mentions is exported", () => {
  expect(surface.unnamed).toEqual([]);
});
