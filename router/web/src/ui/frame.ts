/** A drawing loop: `draw` runs before each paint while the component lives. */
import { useEffect } from 'preact/hooks';

export function useFrames(draw: () => void, on: boolean, deps: unknown[]): void {
  useEffect(() => {
    draw();
    if (!on) return undefined;
    let handle = requestAnimationFrame(function step() {
      draw();
      handle = requestAnimationFrame(step);
    });
    return () => cancelAnimationFrame(handle);
  }, [on, ...deps]);
}
