"""Fair sharing of LLM service between clients, as pure code.

The idea is the Virtual Token Counter of "Fairness in Serving Large Language Models"
(Sheng et al., OSDI 2024). Every client has a counter of the weighted service it has
received: so much per input token, so much per output token, divided by its weight. The
next request to be served is always the oldest one of the client with the smallest
counter, so whoever has received least goes next and a flood of requests only lengthens
the line of the client that sent them. A client that returns from idleness is lifted to the
level of those who are waiting, so idle time can't be saved up. Nothing is ever kept idle
to make things equal: the queue is work conserving.

Two rules for what may live in this package:

1. No clock, no socket, no thread, no Ray, no vLLM, no randomness of its own. Whoever needs
   one of these passes it in. The engine's scheduler, the global queue, the simulator and
   the tests all run the same code.
2. Clients are names (``str``), service is a ``float``, and requests are whatever hashable
   things the caller queues. Nothing here looks inside a request.

Modules: ``cost`` (tokens to service), ``counters`` (service to counters, and the lift),
``policy`` (counters to an order), ``fair_queue`` (the lines in that order), ``lowest_first``
(the heap both of the last stand on), ``prediction`` (of output to come), ``bounds`` (how unfair it
can get), ``measures`` (how unfair it was).
"""
