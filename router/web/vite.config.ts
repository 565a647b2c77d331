// The build of the pages: one entry, one chunk per page, everything from our own origin (the edge's content policy
// forbids inline script and other hosts). `npm run dev` proxies the API to a running node or to dev/mock.mjs.
import { defineConfig } from 'vitest/config';

const backend = process.env.RUSHROOM_URL ?? 'http://127.0.0.1:8787';
const proxied = { target: backend, changeOrigin: true };

export default defineConfig({
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: false },
  test: { include: ['src/**/*.test.ts'] },
  server: {
    host: '127.0.0.1',
    proxy: {
      '/api': proxied,
      '/whip': proxied,
      '/whep': proxied,
      '/media': proxied,
      '/ws': { ...proxied, ws: true },
    },
  },
});
