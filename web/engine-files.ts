import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import type { Plugin } from "vite";

/** Brotli's quality, 0 to 11. At 9 the WebAssembly is 0.4 MB larger and the page built half a minute sooner. */
const PACKING = Number(process.env.PAGE_PACKING ?? 11);

/**
 * ONNX Runtime's WebAssembly beside itself as `.br`, which the server sends to browsers that take it, and its sizes in
 * the page's code: `__WASM_BYTES__` and, as it travels, `__WASM_TRANSFER_BYTES__`.
 */
export function engineFiles(): Plugin {
  return {
    name: "engine-files",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        for (const file of Object.values(bundle)) {
          if (file.type !== "asset" || !file.fileName.endsWith(".wasm")) continue;
          const source = Buffer.from(file.source);
          const small = kept(`${PACKING}.br`, source, brotli);
          this.emitFile({ type: "asset", fileName: `${file.fileName}.br`, source: small });
          for (const chunk of Object.values(bundle)) {
            if (chunk.type !== "chunk") continue;
            chunk.code = chunk.code
              .replaceAll("__WASM_BYTES__", String(source.length))
              .replaceAll("__WASM_TRANSFER_BYTES__", String(small.length));
          }
        }
      },
    },
  };
}

/** What is packed once, since the best packing of 14 MB takes half a minute. */
function kept(suffix: string, source: Buffer, pack: (source: Buffer) => Buffer): Buffer {
  const folder = join(import.meta.dirname, "node_modules", ".cache", "engine-files");
  const file = join(folder, `${createHash("sha256").update(source).digest("hex")}.${suffix}`);
  if (existsSync(file)) return readFileSync(file);
  const packed = pack(source);
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, packed);
  return packed;
}

function brotli(source: Buffer): Buffer {
  const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = constants;
  return brotliCompressSync(source, {
    params: { [BROTLI_PARAM_QUALITY]: PACKING, [BROTLI_PARAM_LGWIN]: 24, [BROTLI_PARAM_SIZE_HINT]: source.length },
  });
}
