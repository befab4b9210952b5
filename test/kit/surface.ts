/**
 * The public surface as text: each exported name with its declaration as the compiler emits it, without
 * comments and private members, so that a review sees every change of it.
 */
import { readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { bun, repositoryRoot } from "../setup/command.ts";
import { runCommand } from "./subprocess.ts";
import { TemporaryFolder } from "./temporary_folder.ts";

/** Where the surface is kept. */
export const SURFACE_FILE = "docs/surface.txt";
const MODULE = "mod.ts";

/** Files with a topic of the library each, for `multifd/TOPIC`. */
const SUBPATHS = "lib/subpaths";

/** What the library exports, and what its declarations mention and it does not export. */
export interface Surface {
  /** The names of each topic, other names for one thing, and a paragraph for each name, in order. */
  readonly text: string;
  readonly names: readonly string[];
  /** `NAME mentions OTHER` for each type that a user meets and cannot name. */
  readonly unnamed: readonly string[];
  /** What a topic has and the whole has not. */
  readonly strays: readonly string[];
}

interface Exported {
  /** As users write it. */
  readonly name: string;
  /** As the file declares it. */
  readonly declared: string;
  readonly file: string;
}

interface Declared {
  readonly name: string;
  readonly text: string;
}

/** Has the compiler emit the declarations and reads them. */
export async function readSurface(): Promise<Surface> {
  using folder = new TemporaryFolder();
  const tsc = join(repositoryRoot, "node_modules", "typescript", "bin", "tsc");
  const project = ["--project", "tsconfig.types.json", "--outDir", folder.path];
  const { status, stdout } = await runCommand([bun, tsc, ...project], { cwd: repositoryRoot });
  if (status !== 0) throw new Error(`Cannot emit declarations: ${stdout}`);
  return surfaceOf(folder.path);
}

function surfaceOf(folder: string): Surface {
  const exported = exportsOf(folder, MODULE);
  const names = new Set(exported.map(({ name }) => name));
  const strays: string[] = [];
  const topics = [...new Bun.Glob("*.ts").scanSync(join(repositoryRoot, SUBPATHS))].toSorted();
  const paragraphs = topics.map((topic) => {
    const within = exportsOf(folder, `${SUBPATHS}/${topic}`);
    strays.push(...within.filter((one) => !isAmong(exported, one)).map(({ name }) => name));
    const list = within.map(({ name }) => `    ${name}`).join("\n");
    return `multifd/${topic.replace(/\.ts$/, "")}\n${list}`;
  });
  const unnamed = new Set<string>();
  for (const { name, declared, file } of exported) {
    if (name !== declared) {
      paragraphs.push(`${name} = ${declared}`);
      continue;
    }
    const code = codeOf(folder, file);
    const declarations = declarationsOf(code);
    const known = new Set([...importsOf(code), ...declarations.map((other) => other.name)]);
    for (const { text } of declarations.filter((candidate) => candidate.name === name)) {
      paragraphs.push(text);
      // Names of members are followed by a colon or a bracket, those of types never are.
      for (const [, word = ""] of text.matchAll(/(?<![\w.$"])(\w+)\b(?!\??\s*[:(])/g)) {
        if (known.has(word) && !names.has(word)) unnamed.add(`${name} mentions ${word}`);
      }
    }
  }
  const text = `${paragraphs.join("\n\n")}\n`;
  return { text, names: [...names], unnamed: [...unnamed], strays };
}

function isAmong(exported: readonly Exported[], one: Exported): boolean {
  return exported.some(({ name, file }) => name === one.name && file === one.file);
}

/** What a module of re-exports has, in the order of the names. */
function exportsOf(folder: string, module: string): Exported[] {
  const statements = /^export (?:type )?\{([^}]*)\} from "([^"]+)"/gm;
  return [...codeOf(folder, module).matchAll(statements)]
    .flatMap(([, list = "", from = ""]) => {
      const file = posix.join(dirname(module), from);
      const items = list.matchAll(/(?:^|,)\s*(?:type )?(\w+)(?: as (\w+))?/g);
      return [...items].map(([, declared = "", name = declared]) => ({ name, declared, file }));
    })
    .toSorted((left, right) => (left.name < right.name ? -1 : 1));
}

function importsOf(code: string): string[] {
  return [...code.matchAll(/^import (?:type )?\{([^}]*)\} from/gm)].flatMap(([, list = ""]) =>
    [...list.matchAll(/(?:^|,)\s*(?:type )?(\w+)/g)].map(([, name = ""]) => name),
  );
}

/** A declaration file without its comments. */
function codeOf(folder: string, file: string): string {
  const text = readFileSync(join(folder, file.replace(/\.ts$/, ".d.ts")), "utf8");
  return text.replaceAll(/^ *\/\*\*[^]*?\*\/\n|^ *(?:#private;|\/\/.*)\n/gm, "");
}

/** The declarations at the top of a file, each up to the bracket or semicolon that ends it. */
function declarationsOf(code: string): Declared[] {
  const start =
    /^(?:export )?(?:declare )?((?:abstract )?(?:class|interface|type|function|const) (\w+))/gm;
  return [...code.matchAll(start)].map((match) => {
    const from = match.index + match[0].length - (match[1]?.length ?? 0);
    const isBody = /^(?:abstract )?(?:class|interface)/.test(match[1] ?? "");
    return { name: match[2] ?? "", text: code.slice(from, endOf(code, from, isBody)) };
  });
}

function endOf(code: string, from: number, isBody: boolean): number {
  let depth = 0;
  for (let at = from; at < code.length; at++) {
    const character = code[at] ?? "";
    if ("({[".includes(character)) depth++;
    if (")}]".includes(character) && --depth === 0 && isBody && character === "}") return at + 1;
    if (character === ";" && depth === 0) return at + 1;
  }
  throw new Error(`Cannot find the end of ${code.slice(from, from + 40)}`);
}
