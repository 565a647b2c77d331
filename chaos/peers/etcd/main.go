// etcd, as published, as one binary of ours: what `etcd` itself is, from the module proxy.
//
// Nothing is changed: `etcdmain.Main` is the whole of etcd's own main function. It is here because the peer must be the
// published server at a pinned version (go.mod), on any machine with a Go toolchain, without a download of a binary.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
