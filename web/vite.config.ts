import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { engineFiles } from "./engine-files.ts";
import { precache } from "./precache.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: "./",
  build: {
    outDir: here("../src/cassava_leaf_disease/web"), // git-ignored; the wheel takes it along
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the page's Content-Security-Policy allows no inline scripts or fonts
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { index: here("index.html"), sw: here("src/sw.ts") },
      output: {
        // the service worker's address must stay the same; all else is named by its content
        entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  plugins: [engineFiles(), precache()],
  worker: { format: "es" },
  server: { fs: { allow: [here("."), here("../src/cassava_leaf_disease/texts")] } },
});
