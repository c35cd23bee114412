// Ory Hydra, as its own main package starts it.
package main

import "github.com/ory/hydra/v2/cmd"

func main() {
	cmd.Execute()
}
