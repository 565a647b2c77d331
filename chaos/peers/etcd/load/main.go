// Load on etcd: closed-loop clients that put, each of which waits for its answer before the next.
//
//	chaos                         load                               etcd's leader
//	  | load --clients 256 … ---->| 256 goroutines, one put each --->|
//	  | <-- "from"                |   (warm-up is over)              |
//	  | <-- "until"               |   (measured time is over)        |
//	  | <-- one line of JSON      |
//
// The two words on stdout let the harness read the servers' CPU over exactly the measured time.
//
// Why it is as kind to etcd as a client can be: it talks to the leader only, so no put is forwarded; values are
// overwritten in place (one key a client), so the tree stays small; goroutines are spread over several HTTP/2
// connections (`--connections`), since one connection is one reader and one writer at both ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// What isn't counted, at the start.
	warm = 2 * time.Second
	// A put without an answer for this long has failed, and so has the run.
	patience = 10 * time.Second
)

type options struct {
	clients, seconds, payload, connections int
	endpoints                              []string
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	var endpoints string
	flag.IntVar(&o.clients, "clients", 256, "closed-loop clients")
	flag.IntVar(&o.seconds, "seconds", 8, "measured time")
	flag.IntVar(&o.payload, "payload", 128, "bytes of a value")
	flag.IntVar(&o.connections, "connections", 8, "HTTP/2 connections that the clients share")
	flag.StringVar(&endpoints, "endpoints", "", "client URLs of the members, comma between; puts go to the leader among them")
	flag.Parse()
	o.endpoints = strings.Split(endpoints, ",")
	if endpoints == "" || o.clients < 1 || o.seconds < 1 || o.payload < 1 || o.connections < 1 {
		return o, errors.New("--endpoints is needed, and all numbers must be at least 1")
	}
	o.connections = min(o.connections, o.clients)
	return o, nil
}

// run loads the leader and prints what came of it.
func run(o options) error {
	leader, err := leader(o.endpoints)
	if err != nil {
		return err
	}
	var pool []*clientv3.Client
	for range o.connections {
		client, err := connect(leader)
		if err != nil {
			return err
		}
		defer client.Close()
		pool = append(pool, client)
	}
	from := time.Now().Add(warm)
	until := from.Add(time.Duration(o.seconds) * time.Second)
	results := make([]result, o.clients)
	var tasks sync.WaitGroup
	for n := range o.clients {
		tasks.Go(func() { results[n] = one(pool[n%len(pool)], n, o.payload, from, until) })
	}
	time.Sleep(time.Until(from))
	fmt.Println("from")
	before := cpu()
	time.Sleep(time.Until(until))
	fmt.Println("until")
	spent := cpu() - before
	tasks.Wait()
	return report(o, leader, results, spent)
}

// leader is the client URL of the member that leads, once all members agree on one.
func leader(endpoints []string) (string, error) {
	client, err := connect(endpoints...)
	if err != nil {
		return "", err
	}
	defer client.Close()
	found := map[uint64][]string{}
	url := ""
	for _, endpoint := range endpoints {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		status, err := client.Status(ctx, endpoint)
		cancel()
		if err != nil {
			return "", fmt.Errorf("%s: %w", endpoint, err)
		}
		found[status.Leader] = append(found[status.Leader], endpoint)
		if status.Leader == status.Header.MemberId {
			url = endpoint
		}
	}
	if len(found) != 1 || url == "" {
		return "", fmt.Errorf("the members don't agree on a leader: %v", found)
	}
	return url, nil
}

func connect(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: patience, Logger: zap.NewNop()})
}

// result is what one client counted.
type result struct {
	micros []int64
	err    error
}

// one puts, waits, puts again, until the time is over; counts puts that lie within the measured time.
func one(client *clientv3.Client, n, payload int, from, until time.Time) result {
	key := fmt.Sprintf("bench-%d", n)
	bytes := make([]byte, payload)
	for i := range bytes {
		bytes[i] = byte('a' + rand.IntN(26))
	}
	value := string(bytes)
	var r result
	for {
		called := time.Now()
		if !called.Before(until) {
			return r
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := client.Put(ctx, key, value)
		cancel()
		done := time.Now()
		if err != nil {
			r.err = err
			return r
		}
		if !called.Before(from) && !done.After(until) {
			r.micros = append(r.micros, done.Sub(called).Microseconds())
		}
	}
}

func report(o options, leader string, results []result, spent time.Duration) error {
	var all []int64
	for _, r := range results {
		if r.err != nil {
			return fmt.Errorf("a put failed: %w", r.err)
		}
		all = append(all, r.micros...)
	}
	if len(all) == 0 {
		return errors.New("no put was answered")
	}
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / 1e3 }
	line, err := json.Marshal(map[string]any{
		"puts_per_s": float64(len(all)) / float64(o.seconds), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1),
		"ops": len(all), "client_cpu_us_per_op": float64(spent.Microseconds()) / float64(len(all)),
		"clients": o.clients, "seconds": o.seconds, "payload": o.payload, "connections": o.connections,
		"endpoint": leader, "go": runtime.Version(),
	})
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// cpu is what this process has used, user and system.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
