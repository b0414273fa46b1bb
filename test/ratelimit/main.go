// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command ratelimit is the reference of rate limit services, with a Redis of its own in memory, for the tests of
// waypoints. It is a module by itself: nothing of it is in the product, or decides about versions there.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/alicebob/miniredis/v2"
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	host := flag.String("host", "127.0.0.1", "address to listen on: gRPC at port 8081, health at 8080")
	limits := flag.String("limits", "", "directory of the files that say which limits there are")
	flag.Parse()
	if err := run(*host, *limits); err != nil {
		fmt.Fprintln(os.Stderr, "ratelimit:", err)
		os.Exit(1)
	}
}

func run(host, limits string) error {
	redis, err := miniredis.Run()
	if err != nil {
		return err
	}
	defer redis.Close()
	for name, value := range map[string]string{
		"HOST": host, "GRPC_HOST": host, "DEBUG_HOST": host, "DISABLE_STATS": "true", "USE_STATSD": "false",
		"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": redis.Addr(), "EXPIRATION_JITTER_MAX_SECONDS": "0",
		"RUNTIME_ROOT": filepath.Dir(limits), "RUNTIME_SUBDIRECTORY": filepath.Base(limits), "RUNTIME_APPDIRECTORY": "config",
		"RUNTIME_WATCH_ROOT": "false", "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	service := runner.NewRunner(settings.NewSettings())
	service.Run()
	return nil
}
